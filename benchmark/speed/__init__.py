"""`benchmark speed`: what each loss costs, beside the same mathematics written with whole matrices."""
