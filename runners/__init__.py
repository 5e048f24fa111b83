"""From a specification to a trained model and one record. The only room that knows the training engine."""
