"""Pages for operators: what is answered now, how well, by which adapter, and what was said.

    site         the addresses, each with who may open it and the headers of its answer
    pages        what stands on each page
    entrance     who is let in: keys, sessions, the form to log in
    session      signed cookies, and tokens against forged forms
    live         counters → rates, now and in the last half hour
    bundles, runs, corrections   adapters, the trainer's runs, what people say of an answer

Reading the record takes processor time that requests need. It is done in a process of its own with
lower priority, one at a time, for a limited time, and remembered for seconds:

    reading      asks that process, and keeps its answers      questions   what can be asked
    reader       the process      traffic, proof, conversations   what it finds

Needs the extra `dashboard` for what is read from the record; the other pages do without.
"""
