"""Render the street of two cameras into FOLDER/gate.mp4 and FOLDER/hall.mp4.

For the RTSP sample server, which plays them over and over: python deploy/render_clips.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge.sources.scene import SceneParams, SynthScene
from edge.sources.scene.video import write_video

SECONDS = 20


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    scene = SynthScene(SceneParams(cameras=2, people=8, seed=1, fps=10.0))
    for camera, name in enumerate(("gate", "hall"), start=1):
        path = Path(sys.argv[1]) / f"{name}.mp4"
        write_video(path, scene, camera, frames=round(SECONDS * scene.params.fps))
        print(f"{path}: {SECONDS} s, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
