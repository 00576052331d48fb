"""The page of `script/demo` for a Space, with limits for strangers."""

import os
import sys

LIMITS = {"MAX_SIZE": "512", "MAX_OUTPUTS": "2", "MAX_STEPS": "50", "MAX_QUEUE": "16", "LORA": "off"}
for name, value in LIMITS.items():
    os.environ.setdefault(f"JSD_DEMO_{name}", value)

from demo.__main__ import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["--host", "0.0.0.0", "--port", os.environ.get("GRADIO_SERVER_PORT", "7860")]))
