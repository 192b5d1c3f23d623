"""ONNX graphs in general: read, checked, tidied, matched and written; no file here knows what an operator is for."""
