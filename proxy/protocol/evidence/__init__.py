"""What counts of answers show, and what they do not: intervals, tests, and how many more it takes.

Pure functions of counts and sequences; scipy is needed (the extras `report` and `train`).

    intervals    a share: Wilson's interval, exact bounds
    paired       two answers to each question: exact test, interval of the difference, margin
    clusters     the same where pairs of one conversation are alike
    sequential   the same for people who look every day
    unpaired     two groups that answered different questions
    bootstrap    medians and their differences
    multiple     several slices at once
    power        how many pairs a question takes
"""
