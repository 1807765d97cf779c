"""The doors of the served app: the page, Gradio's endpoints and the plain HTTP routes."""

import os

# Gradio asks its makers' servers for news unless this is set before it is imported, which only this package does.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
