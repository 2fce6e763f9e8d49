// A small pool for work cut by ciphertext. Knows nothing of Python: callers release the GIL first.
#pragma once

#include <cstddef>
#include <functional>

namespace quancrypt {

/// body(index, worker): `worker` < num_threads() selects a workspace that no other call uses now.
using ParallelBody = std::function<void(std::size_t index, std::size_t worker)>;

/// Threads used by parallel_for: QUANCRYPT_NUM_THREADS, else the CPUs this process may run on.
std::size_t num_threads();

/// At least 1; takes effect with the next parallel_for.
void set_num_threads(std::size_t threads);

/// Calls body for every index in [0, count), in any order, on up to num_threads() threads, the
/// caller's among them. The first exception is rethrown here after all workers stopped. While
/// another thread of the program uses the pool, a call runs on its own thread alone.
void parallel_for(std::size_t count, const ParallelBody& body);

}  // namespace quancrypt
