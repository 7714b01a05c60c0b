"""Pages for people that open anywhere: one file, no script, no network.

    frame    the page, its style and its policy, and templates that fill it
    charts   figures with their intervals, drawn
    words    figures as people read them, here and in a terminal

Needs Matplotlib to draw (the extras `report` and `train`).
"""
