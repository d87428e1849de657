"""Other people's engines and loops: thin adapters that change nothing but where the work runs.

`integrate.ray` and `integrate.spark` scan a column wherever its pieces lie. `integrate.lightning` and
`integrate.transformers` have a callback that governs their trainers; `integrate.accelerate` and `integrate.fabric` a
governor for a loop over what they prepared. None of them is imported by flyball itself.
"""
