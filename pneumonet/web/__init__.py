"""The doors of the served app: the page, Gradio's endpoints and the plain HTTP routes."""

import os

# Gradio asks its makers' servers for news unless this is set before it is imported, which only this package does.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# It keeps the last 10,000 events for a monitor that is closed here, and looks through all of them after each one. Read
# whenever a gr.Blocks is made.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
