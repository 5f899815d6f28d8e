# One file for CPU and GPU. The build's arguments:
#   BASE_IMAGE    Python 3.11 on a slim Debian, to the patch release; name it with its digest to have the same one for ever
#   TORCH_INDEX   where torch comes from: the CPU builds by default, https://download.pytorch.org/whl/cu130 for CUDA 13;
#                 empty takes pip's own index, which on PyPI is a CUDA build
#   EXTRAS        optional dependencies by the names of pyproject.toml, beside those of training: formats reads NRRD,
#                 MetaImage and DICOM, export hands networks on to other engines, with int8 in int8 too
#   REVISION, SOURCE_URL   git revision and address of the source, for the labels
# There is no HEALTHCHECK: a container is one batch job, and its exit code says how it went.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm

# The requirements alone, so that a change of other settings in pyproject.toml installs nothing anew.
FROM ${BASE_IMAGE} AS requirements
WORKDIR /build
COPY pyproject.toml ./
ARG EXTRAS=
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = [project['optional-dependencies'][name] for name in 'train ${EXTRAS}'.split()]; \
        print(*sum(extras, project['dependencies']), sep='\n')" > requirements.txt

FROM ${BASE_IMAGE} AS dependencies
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/venv
# torch first and alone: it is the largest, and no other package is ever looked up at its index. Out goes what only
# serves to compile against it or to test it. Bytecode is made here, since at run time the root is read-only; unchecked,
# so that it holds whatever a copy does to time stamps.
RUN pip --python /opt/venv/bin/python install --quiet --no-compile --no-deps ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} \
        "torch==${TORCH_VERSION}" \
    && cd /opt/venv/lib/python3*/site-packages \
    && rm -rf torch/include torch/share torch/test torch/bin/*test* torch/bin/protoc* torch/lib/*.a \
    && python -m compileall -q -j 0 -x py312_ --invalidation-mode unchecked-hash .
WORKDIR /build
COPY constraints.txt ./
COPY --from=requirements /build/requirements.txt ./
RUN pip --python /opt/venv/bin/python install --quiet --no-compile \
        --constraint constraints.txt --requirement requirements.txt \
    && cd /opt/venv/lib/python3*/site-packages \
    && find . -path ./torch -prune -o -type d -name tests -prune -exec rm -rf {} + \
    && python -m compileall -q -j 0 -x '^\./torch/' --invalidation-mode unchecked-hash .

# The package as `pip install .` installs it, apart from its dependencies.
FROM dependencies AS source
WORKDIR /build
COPY LICENSE README.md pyproject.toml setup.py ./
COPY configs configs
COPY seg seg
# data/ and runs/ are the mounts, so that the README's relative paths mean the same inside as outside.
RUN pip --python /opt/venv/bin/python install --quiet --no-compile --no-deps --prefix /app . \
    && mv /app/lib/python3*/site-packages /app/site \
    && python -m compileall -q --invalidation-mode unchecked-hash /app/site \
    && mkdir /app/job && ln -s /in /app/job/data && ln -s /out /app/job/runs \
    && ln -s /app/site/seg/configs /app/job/configs \
    && chmod -R a+rX /app

FROM ${BASE_IMAGE}
COPY --from=dependencies /opt/venv /opt/venv
# HOME and what libraries keep there are in /tmp, the one place that may be written under a read-only root. USER gives a
# name to a user id that has none in the image.
ENV PATH=/app/bin:/opt/venv/bin:$PATH PYTHONPATH=/app/site PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=seg MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A file in runs/ that names ../data means the same inside as outside too.
RUN mkdir -p /in /out && chown 1000:1000 /out && ln -s /in /data && ln -s /out /runs
COPY --from=source /app /app
WORKDIR /app/job
# Ctrl-C and `docker stop` end a job the same way: at once, with whole files only.
STOPSIGNAL SIGINT
ENTRYPOINT ["seg"]
CMD ["--help"]
# Last, since it changes with every revision. The file is what a run's environment.json names.
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE_URL=unknown
RUN echo "${REVISION}" > /app/site/REVISION
USER 1000:1000
LABEL org.opencontainers.image.title="seg" \
      org.opencontainers.image.description="3-D U-Nets for medical image segmentation. Research software. Not a medical device; not for clinical use." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE_URL}"
