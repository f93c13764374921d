"""What a trained or frozen network says of pictures: engines, features, model files."""
