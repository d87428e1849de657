"""Other people's engines: thin adapters that change nothing but where the work runs.

`integrate.ray` and `integrate.spark` scan a column wherever its pieces lie. None of them is imported by flyball itself.
"""
