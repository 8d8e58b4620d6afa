# Two images: `edge`, what a camera box runs, and `matcher`, the server. A third, `rtsp-sample`,
# plays our rendered street as two RTSP cameras, for trying the others without a camera.
#
#   docker build --target edge    -t edge-reid/edge .
#   docker build --target matcher -t edge-reid/matcher .
#   docker run --rm IMAGE --rtsp rtsp://10.0.0.7/main --matcher HOST:PORT
#
# A package index of your own and its certificate come in as secrets and stay out of the image:
#   --secret id=pip_conf,src=pip.conf --secret id=ca_bundle,src=ca.pem
# How they are built and tried where there is no engine: deploy/build_image.sh and docs/image.md.

ARG BASE=python:3.11-slim-bookworm

# ---- everything that only building needs ------------------------------------------------------
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/edge-reid
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY reid reid
COPY edge edge
COPY matcher matcher
COPY models models

FROM build AS build-edge
COPY deploy/strip_image.sh /usr/local/bin/strip_image
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/etc/ssl/build-ca.pem \
    /opt/pip/bin/pip --python /opt/edge-reid/bin/python install --no-compile . \
    && sh /usr/local/bin/strip_image edge /opt/edge-reid

FROM build AS build-matcher
COPY deploy/strip_image.sh /usr/local/bin/strip_image
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_bundle,target=/etc/ssl/build-ca.pem \
    /opt/pip/bin/pip --python /opt/edge-reid/bin/python install --no-compile '.[matcher]' \
    && /opt/pip/bin/pip --python /opt/edge-reid/bin/python uninstall --yes --quiet \
       av opencv-python-headless onnxruntime lapx \
    && sh /usr/local/bin/strip_image matcher /opt/edge-reid

# ---- a rendered street as two clips, and a server that plays them -----------------------------
FROM build-edge AS clips
COPY deploy/render_clips.py /usr/local/lib/render_clips.py
RUN mkdir /clips && /opt/edge-reid/bin/python /usr/local/lib/render_clips.py /clips

FROM ${BASE} AS rtsp-sample
# a server for trying things out takes what Debian has today
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-gi gir1.2-gst-rtsp-server-1.0 \
       gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
    && rm -rf /var/lib/apt/lists/*
COPY tests/support/rtsp_server.py /usr/local/lib/rtsp_server.py
COPY --from=clips /clips /clips
USER 65534:65534
EXPOSE 8554
ENTRYPOINT ["/usr/bin/python3", "/usr/local/lib/rtsp_server.py"]
CMD ["--host", "0.0.0.0", "--port", "8554", "--mount", "/gate=/clips/gate.mp4", "--mount", "/hall=/clips/hall.mp4"]

# ---- what both images share: a user, no installer, one writable folder ------------------------
FROM ${BASE} AS common
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip \
      /usr/local/bin/pip* /usr/lib/python3*/ensurepip /usr/share/python-wheels \
    && find / -xdev -name __pycache__ -prune -exec rm -rf {} + \
    && groupadd --gid 10001 reid \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
       --shell /usr/sbin/nologin reid
ENV PATH=/opt/edge-reid/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

FROM common AS matcher
COPY --from=build-matcher /opt/edge-reid /opt/edge-reid
# /certs: where deploy/compose.yaml mounts the volumes that certificates are made in; an empty volume
# takes its owner from here
RUN install -d -o 10001 -g 10001 -m 700 /var/lib/edge-reid \
      /certs /certs/server /certs/box /certs/box/box-1 \
    && install -d -m 755 /etc/edge-reid/tls
USER 10001:10001
WORKDIR /var/lib/edge-reid
VOLUME ["/var/lib/edge-reid"]
EXPOSE 7443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://' + os.environ.get('EDGE_MATCH_METRICS', '127.0.0.1:9465') + '/healthz', timeout=4)"]
ENTRYPOINT ["edge-match"]
CMD ["serve", "--listen", "0.0.0.0:7443", "--data-dir", "/var/lib/edge-reid"]

FROM common AS edge
COPY --from=build-edge /opt/edge-reid /opt/edge-reid
RUN install -d -o 10001 -g 10001 -m 700 /var/lib/edge-reid \
    && install -d -m 755 /etc/edge-reid/tls /models
ENV EDGE_DATA_DIR=/var/lib/edge-reid \
    EDGE_MODELS_DIR=/models
USER 10001:10001
WORKDIR /var/lib/edge-reid
VOLUME ["/var/lib/edge-reid"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://' + os.environ.get('EDGE_METRICS', '127.0.0.1:9464') + '/healthz', timeout=4)"]
ENTRYPOINT ["edge-run"]
