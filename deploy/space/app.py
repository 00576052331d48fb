"""The page of `script/demo` for a Space, with limits for strangers."""

import os
import sys

for name, value in {"SIZE": "512", "OUTPUTS": "2", "STEPS": "50", "QUEUE": "16"}.items():
    os.environ.setdefault(f"JSD_DEMO_MAX_{name}", value)

from demo.__main__ import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["--host", "0.0.0.0", "--port", os.environ.get("GRADIO_SERVER_PORT", "7860")]))
