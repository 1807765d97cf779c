"""The doors of the served app: the page, Gradio's endpoints and the plain HTTP routes."""
