"""Passes over ONNX graphs that know Group Normalization."""
