// A small pool for work cut by ciphertext. Knows nothing of Python: callers release the GIL first.
#pragma once

#include <cstddef>
#include <functional>

namespace quancrypt {

/// body(index, worker): `worker` selects a workspace that no other call uses now.
using ParallelBody = std::function<void(std::size_t index, std::size_t worker)>;

/// QUANCRYPT_NUM_THREADS, else the CPUs this process may run on, unless set_num_threads was called.
/// Throws Error(parameter) if the variable is no number from 1 to 1024. May change at any time: whoever
/// makes workspaces reads it once and hands the number on.
std::size_t num_threads();

/// From 1 to 1024; takes effect with the next reading of num_threads.
void set_num_threads(std::size_t threads);

/// Calls body for every index in [0, count), in any order, on up to `workers` threads, the caller's
/// among them; worker < workers. The first exception is rethrown here after all workers stopped. While
/// another thread of the program uses the pool, a call runs on its own thread alone.
void parallel_for(std::size_t count, std::size_t workers, const ParallelBody& body);

}  // namespace quancrypt
