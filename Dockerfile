# docker build -t rsdiff .                                PyTorch with CUDA; needs the NVIDIA container toolkit to use a GPU
# docker build -t rsdiff --build-arg TORCH_INDEX=URL .    PyTorch from another index: the one of CPU builds that pytorch.org names
# docker run --rm --user $(id -u):$(id -g) -v $PWD:/work rsdiff task=restore checkpoint=RUN input=scene.tif output=scene_x4.tif
FROM python:3.11-slim
ARG TORCH_INDEX=
# git tells the version; rasterio's wheels need the system's libexpat, which this image lacks (rasterio/rasterio-wheels, issue 136).
RUN apt-get update && apt-get install -y --no-install-recommends git libexpat1 && rm -rf /var/lib/apt/lists/*
COPY . /rsdiff
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url $TORCH_INDEX} --constraint /rsdiff/requirements.lock /rsdiff \
 && rsdiff --version
# Caches of a user whom the image does not know.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["rsdiff"]
