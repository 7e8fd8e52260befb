# septa in a container:
#   docker build -t septa .
#   docker run --rm -v "$PWD:/data" septa predict cells.septa images -o segmented
# PyTorch's own index has smaller builds for processors only; give its address with --build-arg PIP_EXTRA_INDEX_URL=...

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
ARG PIP_EXTRA_INDEX_URL=""
# The extras to install, for example openvino,cluster.
ARG EXTRAS="openvino,cluster"
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints.txt "$(echo /wheels/*.whl)[${EXTRAS}]" \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 septa
USER 1000
# Compiled loops are kept where every user may write.
ENV NUMBA_CACHE_DIR=/tmp/septa-numba
WORKDIR /data
ENTRYPOINT ["septa"]
CMD ["--help"]
