"""Stand-in carriers: one process that speaks as Twilio, Resend and a webhook receiver, and keeps the truth.

The providers have no usable emulators, so this one keeps their contracts (answers, errors, ids, signed
callbacks), adds knobs for everything that goes wrong in the field, and a journal of what was *accepted*:
the ground truth that a demo and the fault tests reconcile against. It shares no code with the platform, so
neither hides the other's mistake. It binds the loopback interface only and its control doors have no
password.

    python -m infra.local.carriers --port 54330
"""
