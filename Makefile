# Caracal.  `make` builds build/caracal; `make demo` and `make test` also install what they need.
#
#   make                 build/caracal and build/tests/*
#   make demo            real text -> tokenizer -> token shards -> a trained 28-layer model, on two ranks
#   make compare         ScMoE and the sequential baseline on the same text, and a page that compares them
#   make transfer        the best learning rate at three widths, with and without transfer: a picture, in a quarter of an hour
#   make experiments     what the report says about training, tried on small models (docs/experiments.md): a quarter of an hour
#   make check           the fast tests;   make test   all of them, lint included
#   make bench           kernels and steps against the machine's limits (docs/performance.md);   make peers   others beside them
#   make bench ISA=avx2  the same with what a processor without AVX-512 has
#   make scaling         what a token costs as sequences, experts and layers grow (docs/performance.md)
#   make bench-ckpt      how long a save stops training, how fast it is (docs/checkpoints.md)
#   make crash-storm     1,000 kills, power losses, damage, failing disks (docs/reliability.md)
#   make CUDA=1          the same with the cuda backend, by nvcc (in build/cuda)
#   make CUDA=1 WGMMA=0  with mma.sync on Hopper, too, to compare with (in build/cuda-mma)
#   make CUDA=1 bundle   a folder that trains on a machine with no packages;   make CUDA=1 test-gpu   what needs a GPU
#   make SAN=1 check     the fast tests under AddressSanitizer and UBSan (in build/asan)
#   make format          clang-format the sources;   make lint   style, warnings, include order
#   make ulp             the error of every operation in units of the last place (docs/numerics.md)
#   make promises        28 layers on 1 to 8 ranks, bit for bit, in about 35 minutes;   make promises-cost   what that costs
#   make install PREFIX=/usr/local
#   make interop         transformers, tokenizers, h5py with our files and ours with theirs (5 GB of Python)

B      := build$(if $(CUDA),/cuda)$(if $(filter 0,$(WGMMA)),-mma)$(if $(SAN),/asan)
CC     := gcc# and not clang, whose pragmas call what launch/threads.c does not answer
PREFIX ?= /usr/local
Q      := $(if $(V),,@)# make V=1 shows the commands

ROOMS  := launch kernels kernels/ref model optim data ckpt train
SRC    := $(sort $(wildcard $(addsuffix /*.c,$(ROOMS))))
CPUSRC := $(sort $(wildcard kernels/cpu/*.c))
CU     := $(sort $(wildcard kernels/cuda/*.cu))
TESTS  := $(sort $(wildcard tests/test_*.c))
TOOLS  := $(sort $(wildcard tests/tool_*.c))
# tests of the whole model in double precision: only rooms that compute, compiled with real = double
F64SRC := $(sort $(wildcard launch/*.c kernels/*.c kernels/ref/*.c model/*.c optim/*.c))
F64TST := $(sort $(wildcard tests/f64_*.c))

PKGS   := ompi-c hdf5 libzstd yaml-0.1 jansson libpcre2-8 libxxhash
WARN   := -Wall -Wextra -Werror -Wshadow=local -Wstrict-prototypes -Wmissing-prototypes -Wvla
# No fast-math, and no contraction: fma stands only where it is written (docs/determinism.md).
# Recursive on purpose: pkg-config runs when something is compiled, after `make deps` had its chance.
CFLAGS  = -std=c11 -D_GNU_SOURCE -O3 -g -march=x86-64-v3 -ffp-contract=off -fno-math-errno -fopenmp $(WARN) \
          -I. $(PKGFLAGS) $(SANFLAGS) $(if $(CUDA),-DCARACAL_CUDA)
LDLIBS  = $(PKGLIBS) $(if $(CUDA),-L$(CUDADIR)/lib64 -lcudart_static -ldl -lrt) -lm -lpthread \
          $(if $(SAN),-fsanitize=address$(comma)undefined)
# Sanitizers hide from gcc what bounds a string: its guesses about truncation only warn there.
SANFLAGS = $(if $(SAN),-O1 -fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer \
           -Wno-error=format-truncation)
# Rounding as the C code has it: nothing flushed, division and square root exact, no contraction.
CUDADIR ?= /usr/local/cuda
NVCC   := $(CUDADIR)/bin/nvcc
NVFLAGS := -std=c++17 -O3 -lineinfo -I. -ftz=false -prec-div=true -prec-sqrt=true -fmad=false -Werror all-warnings \
          -Xcompiler -Wall,-Wextra,-Wno-unused-parameter,-fno-exceptions,-fno-threadsafe-statics \
          -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a \
          $(if $(filter 0,$(WGMMA)),-DCARACAL_NO_WGMMA)
# On the emulator, what is read or written where no GPU would do it (a float4 at an odd float) ends the program.
ALIGNED := $(if $(SAN),,-fsanitize=alignment -fsanitize-undefined-trap-on-error)
comma  := ,
# the prerequisites of a recipe may not be installed yet when the Makefile is read
MISSING  = $(foreach p,$(PKGS),$(shell pkg-config --exists $p 2>/dev/null || echo $p))
PKGFLAGS = $(if $(strip $(MISSING)),$(error pkg-config does not find $(strip $(MISSING)); `make deps` installs \
           what is missing))$(eval PKGFLAGS := $(shell pkg-config --cflags $(PKGS)))$(PKGFLAGS)
PKGLIBS  = $(eval PKGLIBS := $(shell pkg-config --libs $(PKGS)))$(PKGLIBS)

OBJ    := $(SRC:%.c=$B/obj/%.o) $(CPUSRC:%.c=$B/obj/%.avx2.o) $(CPUSRC:%.c=$B/obj/%.avx512.o) \
          $(if $(CUDA),$(CU:%.cu=$B/obj/%.o))
LIB    := $(filter-out $B/obj/train/main.o,$(OBJ))
# The program with the cuda backend on the emulator (tests/emulate): what knows of CUDA is compiled once more.
KNOWS  := $(shell grep -l CARACAL_CUDA $(SRC))
EMULATED := $(filter-out $(KNOWS:%.c=$B/obj/%.o),$(OBJ)) $(KNOWS:%.c=$B/emulated/%.o) \
          $(CU:%.cu=$B/emulated/%.o) $(patsubst %,$B/emulated/tests/emulate/%.o,block nccl) $B/obj/tests/emulate/emulate.o
F64LIB := $(F64SRC:%.c=$B/f64/%.o)
# the program and replay once more, with the cpu backend in memory that only kernels can reach
FAR    := $B/tests/far/caracal $B/tests/far/tests/replay
# the program with a cpu backend whose ranks can be late, or end
LATE   := $B/tests/late/caracal
BINS   := $(FAR) $(LATE) $(TESTS:tests/%.c=$B/tests/%) $(TOOLS:tests/tool_%.c=$B/tests/%) $(F64TST:tests/%.c=$B/tests/%) \
          $B/tests/replay_cuda

# keep the tests' objects: make would delete them as intermediate
.SECONDARY:
.PHONY: all deps demo compare transfer experiments check test ulp bench scaling peers bench-ckpt crash-storm promises \
        promises-cost bundle bundle-emulated test-gpu lint format install clean interop
all: $B/caracal $B/libH5Zzstd.so $B/tests/shim_fs.so $(BINS)

deps:
	@launch/setup.sh

$B/caracal: $(OBJ)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(LDLIBS)

# for h5dump and h5py, through HDF5_PLUGIN_PATH; a guest in their processes, so never under a sanitizer
$B/libH5Zzstd.so: ckpt/filter.c ckpt/filter.h
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 -g -fPIC -shared $(WARN) -I. $(PKGFLAGS) -o $@ $< $(shell pkg-config --libs hdf5 libzstd)

$B/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
$B/obj/%.avx2.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	$(Q)$(CC) $(CFLAGS) -DISA=avx2 -MMD -MP -c -o $@ $<
$B/obj/%.avx512.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	$(Q)$(CC) $(CFLAGS) -march=x86-64-v4 -mprefer-vector-width=512 -DISA=avx512 -MMD -MP -c -o $@ $<
$B/obj/%.o: %.cu
	@mkdir -p $(@D)
	@echo '  NVCC $@'
	$(Q)$(NVCC) $(NVFLAGS) -MMD -MP -c -o $@ $<
$B/emulated/%.o: %.cu
	@mkdir -p $(@D)
	@echo '  CXX  $@'
	$(Q)g++ -x c++ -std=c++17 -O2 -g -march=x86-64-v3 -ffp-contract=off -fno-math-errno -fno-exceptions -fno-rtti \
	    -Wall -Wextra -Werror -Wno-unknown-pragmas $(ALIGNED) -Itests/emulate -I. $(SANFLAGS) -MMD -MP -c -o $@ $<
$B/emulated/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	$(Q)$(CC) $(CFLAGS) -DCARACAL_CUDA -MMD -MP -c -o $@ $<
$B/f64/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	$(Q)$(CC) $(CFLAGS) -DCARACAL_F64 -MMD -MP -c -o $@ $<

# tests of the cuda backend: on the device in build/cuda, else on the emulator
ONCUDA := $(if $(CUDA),$(OBJ) $B/obj/tests/emulate/block.o $B/obj/tests/emulate/emulate.o,$(EMULATED))
$(filter $B/tests/test_cuda_%,$(BINS)): $B/tests/%: $B/obj/tests/%.o $(filter-out $B/obj/train/main.o,$(ONCUDA))
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(LDLIBS) -lcmocka
$B/tests/replay_cuda: $B/obj/tests/tool_replay.o $(filter-out $B/obj/train/main.o,$(ONCUDA))
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(LDLIBS)
$B/tests/caracal_cuda: $(ONCUDA)
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(LDLIBS)
$B/tests/transport: $B/obj/tests/tool_transport.o $(filter-out $B/obj/train/main.o,$(ONCUDA))
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(LDLIBS)
$B/tests/test_emulator: $B/emulated/tests/emulate/wrong.o $B/emulated/tests/emulate/tiles.o $B/obj/tests/emulate/emulate.o \
    $(if $(CUDA),,$B/emulated/kernels/cuda/launch.o)
$B/tests/test_%: $B/obj/tests/test_%.o $(LIB)
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(LDLIBS) -lcmocka
$B/tests/f64_%: $B/f64/tests/f64_%.o $(F64LIB)
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(LDLIBS) -lcmocka
# errors in units of the last place: the cases in float, and once more in double with the ref backend, of which
# one name is seen outside
ULPF64 := $(patsubst %.c,$B/f64/%.o,tests/ulp_cases.c kernels/math.c $(wildcard kernels/ref/*.c))
$B/f64/ulp_exact.o: $(ULPF64)
	@echo '  LD   $@'
	$(Q)$(CC) -r -nostdlib -o $@ $^
	$(Q)objcopy --keep-global-symbol=ulp_exact $@
$B/tests/ulp $B/tests/test_ulp: $B/obj/tests/ulp_cases.o $B/f64/ulp_exact.o
$B/tests/bench: $(patsubst %,$B/obj/tests/%.o,bench_gemm bench_ops bench_step timed)
$B/tests/bench_page: $B/obj/tests/bench_goals.o
$B/tests/%: $B/obj/tests/tool_%.o $(LIB)
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(LDLIBS)

WRAPLD := -Wl,--wrap=kernels_cpu_avx2,--wrap=kernels_cpu_avx512
$B/tests/far/caracal: $B/obj/tests/far.o $(OBJ)
$B/tests/late/caracal: $B/obj/tests/late.o $(OBJ)
$B/tests/far/tests/replay: $B/obj/tests/far.o $B/obj/tests/tool_replay.o $(LIB)
$(FAR) $(LATE):
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) -o $@ $^ $(WRAPLD) $(LDLIBS)

# stands between a program and the file system (tests only, through LD_PRELOAD)
$B/tests/shim_fs.so: tests/shim_fs.c tests/shim_fs.h
	@mkdir -p $(@D)
	@echo '  CC   $@'
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -O2 -g -fPIC -shared $(WARN) -I. -o $@ $< -ldl -lpthread

demo: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@launch/demo.sh

compare: deps
	@$(MAKE) --no-print-directory -j$$(nproc) $B/caracal
	@launch/compare.sh

transfer: deps
	@$(MAKE) --no-print-directory -j$$(nproc) $B/caracal
	@launch/transfer.sh

experiments: deps
	@$(MAKE) --no-print-directory -j$$(nproc) $B/caracal
	@launch/experiments.sh

check: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@tests/run.sh fast $B

test: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@$(MAKE) --no-print-directory lint
	@tests/run.sh all $B

# docs/numerics.md's tables; OPENBLAS names a library to compare with where the system has none
ulp: $B/tests/ulp
	@$B/tests/ulp $(OPENBLAS)

# some minutes, of a quiet machine: docs/performance.md
bench: $B/caracal $B/tests/bench $B/tests/bench_fold $B/tests/bench_page
	@CARACAL_BUILD=$B tests/bench.sh $(ISA:%=--isa=%)

scaling: $B/caracal $B/tests/scaling
	@CARACAL_BUILD=$B tests/scaling.sh

peers:
	@CARACAL_BUILD=$B tests/peers/setup.sh

# some minutes, of a quiet machine: docs/checkpoints.md
bench-ckpt: $B/tests/bench_ckpt
	@CARACAL_BUILD=$B tests/bench_ckpt.sh

# an hour: docs/reliability.md
crash-storm: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@CARACAL_BUILD=$B tests/mpi_crash.sh 1000
	@CARACAL_BUILD=$B tests/mpi_powerloss.sh 20
	@CARACAL_BUILD=$B tests/mpi_damage.sh 10000 1
	@CARACAL_BUILD=$B tests/mpi_save_failures.sh 1

promises: all
	@tests/promises.sh

promises-cost: all
	@tests/promises_cost.sh

# a folder for machines without packages: docs/gpu.md
bundle: all
	@launch/bundle.sh $B $B/bundle

# the same with the emulator for a GPU, to try tests/gpu.sh and tests/gpu_speed.sh where none is
bundle-emulated: all $B/tests/caracal_cuda
	@mkdir -p $B/emulated/bundled/tests
	@ln -sf $(abspath $B)/tests/caracal_cuda $B/emulated/bundled/caracal
	@ln -sf $(abspath $B)/tests/replay_cuda $B/emulated/bundled/tests/replay
	@for t in golden timeline transport test_cuda_attention test_cuda_kernels test_cuda_matrix test_cuda_rounded test_cuda_step; do \
	    ln -sf $(abspath $B)/tests/$$t $B/emulated/bundled/tests/$$t; done
	@launch/bundle.sh $B/emulated/bundled $B/bundle-emulated
	@touch $B/bundle-emulated/EMULATED

# on a machine with a GPU
test-gpu: bundle
	@tests/gpu.sh $B/bundle

lint:
	@tests/lint.sh

format:
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cu' '*.cuh')

install: all
	install -D -t $(DESTDIR)$(PREFIX)/bin $B/caracal
	install launch/run $(DESTDIR)$(PREFIX)/bin/caracal-run
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/caracal/configs configs/*.yaml

clean:
	rm -rf build

# TRANSFORMERS=5.23.0 tries another version than run.sh's own
interop: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@tests/interop/run.sh $(TRANSFORMERS)

-include $(shell find $B/obj $B/f64 $B/emulated -name '*.d' 2>/dev/null)
