#!/bin/sh
# Takes out of an installed environment what running it does not need: tests, headers, caches, the
# other half of the project. Called by the Dockerfile: strip_image.sh edge|matcher FOLDER
set -eu
half=$1
site=$(echo "$2"/lib/python3.*/site-packages)

case $half in
  edge)
    rm -rf "$site/matcher" "$2/bin/edge-match" "$2/bin/edge-models"
    # of models only the data stays: the catalogue of known files, and weights where there are any
    find "$site/models" -mindepth 1 -maxdepth 1 \
      ! -name __init__.py ! -name catalogue.toml ! -name weights -exec rm -rf {} +
    # detectors of faces and number plates that nobody calls
    rm -f "$site"/cv2/data/*.xml
    # tools that make models, not run them
    rm -rf "$site/onnxruntime/transformers" "$site/onnxruntime/quantization" \
      "$site/onnxruntime/tools" "$site/onnxruntime/datasets"
    ;;
  matcher)
    rm -rf "$site/edge" "$site/models" "$2/bin/edge-run" "$2/bin/edge-models"
    # columns and Parquet are used; flight, datasets and the C++ headers are not
    rm -rf "$site/pyarrow/include" "$site/pyarrow/src"
    find "$site/pyarrow" -maxdepth 1 \( -name 'libarrow_flight*' -o -name 'libarrow_python_flight*' \
      -o -name '_flight*' -o -name 'libarrow_substrait*' -o -name '_substrait*' \) -delete
    ;;
esac

find "$2" -depth -type d \( -name tests -o -name test -o -name __pycache__ \) -exec rm -rf {} +
rm -rf "$site/numpy/f2py" "$site/numpy/_core/include"
find "$2" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.a' -o -name '*.h' \
  -o -name '*.hpp' -o -name '*.lib' \) -delete
find "$2/bin" -type f ! -name 'edge-*' ! -name 'python*' ! -name activate -delete
