#!/usr/bin/env bash
# Branch coverage of the C++ parsers by the corpus and 3,000 mutations of each target: needs clang and llvm.
#
#   fuzz/coverage.sh build/fuzz-coverage
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
build=$1
targets="residues checksum parameters secret_key public_key update sum decrypt deal party public_shares parts seal_import"
# The flags are those of a build type of its own: SEAL is compiled without them.
CC=clang CXX=clang++ cmake -S . -B "$build" -G Ninja -DQUANCRYPT_BUILD_FUZZERS=ON -DQUANCRYPT_WERROR=OFF \
    -DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON --no-warn-unused-cli -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF \
    -DCMAKE_BUILD_TYPE=Coverage -DCMAKE_EXE_LINKER_FLAGS_COVERAGE=-fprofile-instr-generate \
    "-DCMAKE_CXX_FLAGS_COVERAGE=-O1 -fprofile-instr-generate -fcoverage-mapping"
objects=()
for target in $targets; do
    cmake --build "$build" --target "fuzz_$target"
    LLVM_PROFILE_FILE="$build/$target.profraw" "$build/fuzz/fuzz_$target" --runs 3000 "fuzz/corpus/cpp/$target"
    objects+=(-object "$build/fuzz/fuzz_$target")
done
llvm-profdata merge -o "$build/all.profdata" "$build"/*.profraw
llvm-cov report "${objects[@]}" -instr-profile "$build/all.profdata" \
    | grep -E '^Filename|cpp/(wire|rlwe|multiparty|ring/ring|packing/layout)'
