# shellcheck shell=bash
# Sourced: where a machine with a GPU may keep cublasLt and NCCL (CUDA's own, or Python's packages), and its tools.
PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin
libraries_before=${LD_LIBRARY_PATH:-}
libraries=/usr/local/cuda/lib64:/usr/local/nvidia/lib64
for folder in $(python3 -c 'import glob, sys; print(*(f for p in sys.path for f in glob.glob(p + "/nvidia/*/lib")))' 2>/dev/null); do
    libraries=$libraries:$folder
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries
