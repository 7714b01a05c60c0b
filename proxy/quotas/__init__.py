"""Who may ask how often, for how many tokens and for how much money: rules, and ledgers of use."""
