# Hemi. `make` builds everything into $(BUILD); `make demo` and `make check` need nothing installed beforehand.
#
#   make [all]      libraries, programs, tests, examples          V=1 shows the commands
#   make deps       installs the Debian packages that are missing
#   make check      deps, build, every test          make check-long   the same with the long ones
#   make demo       deps, build, the demonstration
#   make fuzz-run SECONDS=60   every fuzz harness for so long
#   make bench      what docs/performance.md holds: every kernel, then bench/figures.py (ten minutes)
#   make install    PREFIX (/usr/local), DESTDIR
#   make format, make clean
#
# BUILD=build-asan SANITIZE=address,undefined gives a second tree with sanitizers. Rooms are found by wildcard:
# a new file in src/<room>/, tests/ or examples/ needs no edit here.

BUILD    ?= build
SANITIZE ?=
PREFIX   ?= /usr/local
PYTHON   ?= /usr/bin/python3
VERSION  := $(shell sed -n 's/^\#define HEMI_VERSION "\(.*\)"/\1/p' include/hemi/status.h)

CORE_ROOMS   := base random ring rlwe linear ckks circuit model wire
CLIENT_ROOMS := secret client
SERVER_ROOMS := store server
PACKAGES := build-essential pkg-config libmicrohttpd-dev libcurl4-gnutls-dev libsodium-dev libjansson-dev \
            libprotobuf-c-dev protobuf-c-compiler libzip-dev libsqlite3-dev libpq-dev libgnutls28-dev libcmocka-dev libopenblas-dev valgrind \
            python3-torch python3-cffi python3-sklearn python3-pytest python3-numpy python3-setuptools python3-wheel \
            python3-pip python3-venv python3-dev \
            nginx-light openssl postgresql clang libclang-rt-14-dev

# ---- as many jobs as processors, unless the caller chose
ifeq ($(MAKELEVEL),0)
ifeq ($(filter -j% --jobs%,$(shell ps -o args= -p $$PPID 2>/dev/null)),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
Q := $(if $(V),,@)
say = @printf '  %-5s %s\n' $(1) $(2)

# ---- libraries
CORE_PC   := libsodium jansson libzip libprotobuf-c
CLIENT_PC := libcurl
SERVER_PC := libmicrohttpd sqlite3 libpq gnutls
CLI_PC    := openblas
TEST_PC   := cmocka
ifneq ($(filter-out deps check check-long demo format clean fuzz-tree fuzz-run,$(or $(MAKECMDGOALS),all)),)
MISSING := $(shell for p in $(CORE_PC) $(CLIENT_PC) $(SERVER_PC) $(CLI_PC) $(TEST_PC); do \
             pkg-config --exists $$p 2>/dev/null || echo $$p; done)
ifneq ($(strip $(MISSING)),)
$(error missing: $(strip $(MISSING)); `make deps` installs what is needed)
endif
PC_CFLAGS   := $(shell pkg-config --cflags $(CORE_PC) $(CLIENT_PC) $(SERVER_PC) $(CLI_PC) $(TEST_PC))
CORE_LIBS   := $(shell pkg-config --libs $(CORE_PC)) -lm -pthread
CLIENT_LIBS := $(shell pkg-config --libs $(CLIENT_PC))
SERVER_LIBS := $(shell pkg-config --libs $(SERVER_PC))
CLI_LIBS    := $(shell pkg-config --libs $(CLI_PC))
TEST_LIBS   := $(shell pkg-config --libs $(TEST_PC))
endif

# ---- flags
comma := ,
BASE_FLAGS := -std=c17 -g -D_GNU_SOURCE -Iinclude -Isrc -isystem $(BUILD)/gen $(PC_CFLAGS) \
              -fPIC -fvisibility=hidden -ffp-contract=off -fstack-protector-strong -pthread
WARN_FLAGS := -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Werror
ifeq ($(SANITIZE),)
OPT_FLAGS  := -O3 -D_FORTIFY_SOURCE=2
LINK_FLAGS :=
else
OPT_FLAGS  := -O1 -fno-omit-frame-pointer -fsanitize=$(SANITIZE)$(if $(FUZZER),$(comma)fuzzer-no-link) -fno-sanitize-recover=all -Wno-error
LINK_FLAGS := -fsanitize=$(SANITIZE)
endif
ALL_CFLAGS := $(BASE_FLAGS) $(WARN_FLAGS) $(OPT_FLAGS) $(CFLAGS)
ALL_LDFLAGS := -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread $(LINK_FLAGS) $(LDFLAGS)
AVX2_FLAGS   := -mavx2 -mfma
AVX512_FLAGS := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx512ifma -mavx512vbmi -mavx2 -mfma

# ---- files
X86 := $(filter x86_64%,$(shell $(CC) -dumpmachine 2>/dev/null))
sources = $(filter-out $(if $(X86),,%_avx2.c %_avx512.c),$(wildcard $(1:%=src/%/*.c)))
objects = $(patsubst src/%.c,$(BUILD)/obj/%.o,$(call sources,$(1)))

PROTO    := $(wildcard src/model/onnx.proto)
GEN_C    := $(if $(PROTO),$(BUILD)/gen/onnx.pb-c.c)
GEN_H    := $(if $(PROTO),$(BUILD)/gen/onnx.pb-c.h)
GEN_O    := $(if $(PROTO),$(BUILD)/obj/gen/onnx.pb-c.o)

CORE_O   := $(call objects,$(CORE_ROOMS)) $(GEN_O)
CLIENT_O := $(call objects,$(CLIENT_ROOMS))
SERVER_O := $(filter-out $(BUILD)/obj/server/main.o,$(call objects,$(SERVER_ROOMS)))
CLI_O    := $(call objects,cli)
MAIN_O   := $(patsubst src/%.c,$(BUILD)/obj/%.o,$(wildcard src/server/main.c))

CORE_A   := $(BUILD)/lib/libhemi-core.a
CLIENT_A := $(BUILD)/lib/libhemi-client.a
SERVER_A := $(BUILD)/lib/libhemi-server.a

LIBRARIES := $(CORE_A) $(CLIENT_A) $(SERVER_A)
PROGRAMS  := $(if $(CLI_O),$(BUILD)/bin/hemi) $(if $(MAIN_O),$(BUILD)/bin/hemi-server)
TESTS     := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/*.c))
EXAMPLES  := $(patsubst examples/%.c,$(BUILD)/examples/%,$(wildcard examples/*.c))
FUZZERS   := $(patsubst fuzz/fuzz_%.c,$(BUILD)/fuzz/fuzz_%,$(wildcard fuzz/fuzz_*.c))
BENCHES   := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))

.PHONY: all libs programs tests examples fuzz fuzz-tree fuzz-run bench deps check check-long demo format clean install FORCE
all: libs programs tests examples
libs: $(LIBRARIES)
programs: $(PROGRAMS)
tests: $(TESTS)
examples: $(EXAMPLES)

# ---- compiling
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$HEMI_FLAGS" | cmp -s - $@ || printf '%s\n' "$$HEMI_FLAGS" > $@
$(BUILD)/flags: export HEMI_FLAGS = $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS)

$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c $(BUILD)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE_FLAGS) -w $(OPT_FLAGS) $(CFLAGS) -I$(BUILD)/gen -MMD -MP -c $< -o $@

$(BUILD)/obj/%.o: src/%.c $(BUILD)/flags | $(GEN_H)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(if $(filter %_avx2.c,$<),$(AVX2_FLAGS)) $(if $(filter %_avx512.c,$<),$(AVX512_FLAGS)) \
	    $(if $(filter %/int_avx512.c,$<),-mavx512vnni) -MMD -MP -c $< -o $@

ifneq ($(PROTO),)
$(GEN_C) $(GEN_H) &: $(PROTO)
	$(call say,GEN,$(GEN_C))
	@mkdir -p $(BUILD)/gen
	$(Q)protoc-c --proto_path=$(dir $(PROTO)) --c_out=$(BUILD)/gen $(notdir $(PROTO))
endif

# ---- linking. Archives are made anew, and anew when a file left its room: the list of objects is a dependency
define archive
$(BUILD)/$(1).list: FORCE
	@mkdir -p $$(@D)
	@printf '%s\n' '$(2)' | cmp -s - $$@ || printf '%s\n' '$(2)' > $$@
$(BUILD)/lib/$(1).a: $(2) $(BUILD)/$(1).list
	$$(call say,AR,$$@)
	@mkdir -p $$(@D) && rm -f $$@
	$$(Q)$$(AR) rcs $$@ $(2)
endef
$(eval $(call archive,libhemi-core,$(CORE_O)))
$(eval $(call archive,libhemi-client,$(CLIENT_O)))
$(eval $(call archive,libhemi-server,$(SERVER_O)))

# the client's program also evaluates, in `hemi bench` and `hemi inspect`: it may hold both sides, hemi-server may not
$(BUILD)/bin/hemi: $(CLI_O) $(LIBRARIES)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CLI_O) $(SERVER_A) $(CLIENT_A) $(CORE_A) \
	    $(SERVER_LIBS) $(CLIENT_LIBS) $(CLI_LIBS) $(CORE_LIBS) -o $@

$(BUILD)/bin/hemi-server: $(MAIN_O) $(SERVER_A) $(CORE_A)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) $(MAIN_O) $(SERVER_A) $(CORE_A) $(SERVER_LIBS) $(CORE_LIBS) -o $@

# tests/faults.h stands in the place of these
FAULT_FLAGS := $(patsubst %,-Wl$(comma)--wrap=%,malloc calloc realloc aligned_alloc posix_memalign strdup mmap sodium_malloc sodium_init \
                 fsync rename mkdir write read open)

$(BUILD)/tests/%: tests/%.c $(LIBRARIES) $(BUILD)/flags | $(GEN_H)
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -MMD -MP -MF $@.d -MT $@ $< -o $@ $(ALL_LDFLAGS) $(if $(filter test_faults,$*),$(FAULT_FLAGS)) $(SERVER_A) $(CLIENT_A) $(CORE_A) \
	    $(SERVER_LIBS) $(CLIENT_LIBS) $(CLI_LIBS) $(CORE_LIBS) $(TEST_LIBS)

$(BUILD)/examples/%: examples/%.c $(CLIENT_A) $(CORE_A) $(BUILD)/flags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -MT $@ $< -o $@ $(ALL_LDFLAGS) $(CLIENT_A) $(CORE_A) $(CLIENT_LIBS) $(CORE_LIBS)

$(BUILD)/bench/%: bench/%.c $(CORE_A) $(BUILD)/flags
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -MT $@ $< -o $@ $(ALL_LDFLAGS) $(CORE_A) $(CORE_LIBS)

# Harnesses that read untrusted bytes. Here each runs the files it is given (fuzz/replay.c); in a tree of `make fuzz-tree` clang's libFuzzer makes up more.
$(BUILD)/fuzz/%: fuzz/%.c fuzz/fuzz.h fuzz/replay.c fuzz/libfuzzer.c $(LIBRARIES) $(BUILD)/flags
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Ifuzz $< $(if $(FUZZER),fuzz/libfuzzer.c -fsanitize=fuzzer,fuzz/replay.c) -o $@ $(ALL_LDFLAGS) \
	    $(SERVER_A) $(CLIENT_A) $(CORE_A) $(SERVER_LIBS) $(CLIENT_LIBS) $(CLI_LIBS) $(CORE_LIBS)

fuzz: $(FUZZERS)
fuzz-tree:
	@$(MAKE) fuzz BUILD=$(BUILD)-fuzz CC=clang SANITIZE=address,undefined FUZZER=1
fuzz-run: fuzz-tree
	@BUILD='$(BUILD)-fuzz' fuzz/run.sh $(or $(SECONDS),60)

bench: $(BENCHES) programs
	@set -e; for b in $(BENCHES); do $$b; done; $(PYTHON) bench/figures.py --program $(BUILD)/bin/hemi --json $(BUILD)/figures.json

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# ---- packages. dpkg-query is asked once; nothing is done, and nothing said, when all are there. What they bring along as services of the
# machine (nginx, PostgreSQL) is not started: tests start their own
deps:
	@if ! command -v apt-get >/dev/null; then \
	    echo "deps: this is not Debian; needed are the equivalents of: $(PACKAGES)"; exit 0; fi; \
	missing=$$(dpkg-query -W -f='$${Package} $${db:Status-Status}\n' $(PACKAGES) 2>/dev/null | \
	    awk -v all="$(PACKAGES)" '$$2 == "installed" { have[$$1] = 1 } \
	        END { n = split(all, p, " "); for (i = 1; i <= n; i++) if (!(p[i] in have)) printf "%s ", p[i] }'); \
	[ -z "$$missing" ] && exit 0; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo env"; \
	echo "deps: installing $$missing"; \
	policy=/usr/sbin/policy-rc.d; made=; \
	[ -e $$policy ] || { printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null && $$sudo chmod 755 $$policy && made=yes; }; \
	$$sudo apt-get update -q && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; status=$$?; \
	[ -z "$$made" ] || $$sudo rm -f $$policy; exit $$status

# ---- checks and the demonstration: packages first, then a fresh reading of this file
check check-long:
	@$(MAKE) deps
	@$(MAKE) all
	@MAKE='$(MAKE)' BUILD='$(BUILD)' PYTHON='$(PYTHON)' $(if $(filter check-long,$@),HEMI_TEST_LONG=1) tests/run.sh

demo:
	@$(MAKE) deps
	@$(MAKE) libs programs examples
	@if [ -x python/build.sh ]; then BUILD='$(BUILD)' PYTHON='$(PYTHON)' python/build.sh; fi
	@BUILD='$(BUILD)' PYTHON='$(PYTHON)' examples/demo.sh

format:
	@command -v clang-format >/dev/null || { echo "format: needs clang-format (apt-get install clang-format)"; exit 1; }
	clang-format -i $(wildcard include/hemi/*.h src/*/*.[ch] tests/*.[ch] examples/*.[ch] fuzz/*.[ch] bench/*.[ch])

clean:
	rm -rf $(BUILD)

# ---- installing
define PKG_CONFIG_FILE
prefix=$(PREFIX)
libdir=$${prefix}/lib
includedir=$${prefix}/include

Name: Hemi
Description: Runs chosen parts of a model on a server, on encrypted data (client library)
Version: $(VERSION)
Requires: $(CORE_PC) $(CLIENT_PC)
Cflags: -I$${includedir}
Libs: -L$${libdir} -lhemi-client -lhemi-core -lm -pthread
endef
export PKG_CONFIG_FILE

install: libs programs
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include/hemi $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(LIBRARIES) $(DESTDIR)$(PREFIX)/lib
	install -m 644 $(wildcard include/hemi/*.h) $(DESTDIR)$(PREFIX)/include/hemi
	$(if $(strip $(PROGRAMS)),install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin)
	printf '%s\n' "$$PKG_CONFIG_FILE" > $(DESTDIR)$(PREFIX)/lib/pkgconfig/hemi.pc
