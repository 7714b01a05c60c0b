"""Whether answering at home pays, all costs counted, and when it is better not to fine-tune.

case        what is known: volume, tokens, prices, machines, people, what training takes
reckoning   case → costs a month, break-even, rules, one sentence
claims      figures that others have published, reckoned again, and what they leave out
logged      volume and tokens as the record has them
text, page  for people
"""
