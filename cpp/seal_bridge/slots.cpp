#include "seal_bridge/slots.h"

#include <algorithm>
#include <vector>

#include "base/wipe.h"

namespace quancrypt::seal_bridge {
namespace {

/// Plaintexts are secrets: from a pool that SEAL clears.
::seal::MemoryPoolHandle clearing_pool() {
  return ::seal::MemoryManager::GetPool(::seal::mm_prof_opt::mm_force_new, true);
}

}  // namespace

SlotSource::SlotSource(const Context& context, const double* values, std::size_t count)
    : context_(context), encoder_(context.seal()), values_(values), count_(count) {}

void SlotSource::fill(std::size_t index, std::size_t, std::uint64_t* residues) {
  const std::size_t slots = encoder_.slot_count();
  const std::size_t begin = index * slots;
  const std::size_t end = std::min(begin + slots, count_);
  std::vector<double> chunk(values_ + begin, values_ + end);
  const ::seal::MemoryPoolHandle pool = clearing_pool();
  ::seal::Plaintext plain(pool);
  encoder_.encode(chunk, context_.scale(), plain, pool);
  std::copy_n(plain.data(), plain.coeff_count(), residues);
  wipe(chunk.data(), chunk.size() * sizeof(double));
}

SlotSink::SlotSink(const Context& context, float* out, std::size_t count, double factor)
    : context_(context), encoder_(context.seal()), out_(out), count_(count), factor_(factor) {}

void SlotSink::take(std::size_t index, std::size_t, std::uint64_t* residues) {
  const Parameters& parameters = context_.parameters();
  const std::size_t size = parameters.data_primes() * parameters.degree();
  const ::seal::MemoryPoolHandle pool = clearing_pool();
  ::seal::Plaintext plain(pool);
  plain.resize(size);
  std::copy_n(residues, size, plain.data());
  plain.parms_id() = context_.seal().first_parms_id();
  plain.scale() = context_.scale();
  std::vector<double> slots;
  encoder_.decode(plain, slots, pool);
  const std::size_t begin = index * slots.size();
  const std::size_t end = std::min(begin + slots.size(), count_);
  for (std::size_t v = begin; v < end; ++v)
    out_[v] = static_cast<float>(slots[v - begin] * factor_);
  wipe(slots.data(), slots.size() * sizeof(double));
}

}  // namespace quancrypt::seal_bridge
