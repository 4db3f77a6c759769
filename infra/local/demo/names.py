"""Names as people in France, Belgium, Switzerland and Britain bear them, accents, hyphens and apostrophes included."""

from __future__ import annotations

from random import Random


def _list(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


FRENCH_FIRST = _list("""
    Zoé, Éléonore, François, Noël, Chloé, Jérôme, Maëlle, Anaïs, Théo, Inès, Aurélien, Camille, Louise, Hugo, Gaël,
    Loïc, Océane, Rémi, Solène, Mathéo, Léa, Benoît, Marie-Hélène, Jean-Baptiste, Amélie, Cédric, Héloïse, Yasmine,
    Mehdi, Aïcha, Bao, Ewa
""")
FRENCH_LAST = _list("""
    Lefèvre, Müller, Dupré, Béranger, Gauthier, D'Haene, Rousseau, Bâcle, Fontaine, Œuvrard, Chevalier, Maréchal,
    Lambert, Nguyễn, Benali, Peeters, Claes, Rochat, Favre, Besançon, Le Goff, Delacroix, Mercier, Pérez, Saint-Jean,
    Garçon, Hébert, Vanhoutte, Traoré, Diallo
""")
ENGLISH_FIRST = _list("""
    Oliver, Amelia, George, Isla, Harry, Ava, Noah, Freya, Jack, Siân, Zoë, Seán, Priya, Mohammed, Aisha, Callum, Niamh,
    Owen, Poppy, Rhys, Tara, Elijah, Grace, Imran
""")
ENGLISH_LAST = _list("""
    Smith, O'Connor, Taylor, Patel, Hughes, Brontë, MacDonald, Khan, Lloyd-Jones, Walker, Fitzgerald, Okafor, Wright,
    Hall, Ashworth, Sutcliffe, Begum, Clarke, Kelly, Whitaker
""")


def draw(chance: Random, language: str) -> str:
    """A full name; `language` is `fr` or `en`, and one name in ten comes from the other side."""
    is_french = (language == "fr") != (chance.random() < 0.1)
    first, last = (FRENCH_FIRST, FRENCH_LAST) if is_french else (ENGLISH_FIRST, ENGLISH_LAST)
    return f"{chance.choice(first)} {chance.choice(last)}"
