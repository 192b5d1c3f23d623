"""Task parity: whether a model still does its job, by a metric over labelled data, with how sure that is."""
