"""From rows of any source to a dataset: filters, near duplicates, split, variety, and a funnel.

Read `build.py` first: it has the whole story. A filter is one class in one of the files here and
one line in `chain.FILTERS`; its settings are in `trainer/recipe/curation.py`.
"""
