"""Which candidate is best: the rule of choice, its prior and its evidence; the search of a policy."""
