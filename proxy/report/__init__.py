"""Proof from the record: who answers better, and what it costs. Extra `report`.

pairs      the record → pairs: two backends' answers to one request
estimates  a share, a time, a cost: with n and intervals
figures    pairs → agreement, accuracy, validity, calls, times, costs
slices     the same by domain, tool, tenant, adapter and day
verdict    figures → better, not worse, worse or undecided
trials     live comparisons: groups of conversations that were assigned by chance
ab         all of these as one report
costs      what was saved, with own hardware as configured
text, html what people read
"""
