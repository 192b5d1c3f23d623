"""`gn-deploy demo`, as the README tells a newcomer to type it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_takes_the_trained_model_all_the_way(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gn_deploy", "demo", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["verdict"] == "held"
    assert {r["runtime"] for r in report["runtimes"]} == {"torch", "onnx-reference", "onnxruntime", "openvino"}
    assert len(report["sites"]) == 4 * 9
    assert all(0 < v["metrics"]["error_over_bound"] <= 1 for v in report["sites"])
    assert {t["samples"] for t in report["tasks"]} == {540}
    assert all(t["value"] > 0.97 and t["agreement"] == 1.0 for t in report["tasks"])
    kernels = " ".join(k["name"] for k in report["engines"][0]["kernels"])
    assert "Gnor" in kernels
    made = {p.name for p in (tmp_path / "gn-deploy-demo").iterdir()}
    assert made == {
        "report.html",
        "report.json",
        "junit.xml",
        "digits_resnet.engine",
        "digits_resnet.onnx",
        *(f"digits_resnet.{target}.onnx" for target in ("ort-cpu", "openvino", "tensorrt-rtx")),
    }
