// An update is a sequence of tensors; their values are numbered through and fill ciphertext after
// ciphertext. A segment is one tensor's flat memory.
#pragma once

#include <algorithm>
#include <cstddef>

namespace quancrypt {

/// Calls visit(segment, first value inside the segment, first value inside the window, count) for
/// every part of `segments` that overlaps the window [begin, end) of the numbered values.
/// `starts[i]` is the number of the first value of segments[i], ascending.
template <class Segments, class Starts, class Visit>
void for_each_overlap(const Segments& segments, const Starts& starts, std::size_t begin,
                      std::size_t end, const Visit& visit) {
  auto first = std::upper_bound(starts.begin(), starts.end(), begin);
  auto i = static_cast<std::size_t>(first - starts.begin());
  if (i > 0) --i;
  for (; i < segments.size() && starts[i] < end; ++i) {
    const std::size_t from = std::max(begin, starts[i]);
    const std::size_t to = std::min(end, starts[i] + segments[i].count);
    if (from < to) visit(segments[i], from - starts[i], from - begin, to - from);
  }
}

}  // namespace quancrypt
