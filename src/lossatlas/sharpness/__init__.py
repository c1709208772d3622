"""How sharp a minimum is: the measures of the field, each with its error, its cost and what leaves it unchanged."""
