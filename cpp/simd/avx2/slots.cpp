#include "simd/avx2/avx2.h"
#include "simd/slot_transform.h"

namespace quancrypt::simd::avx2 {

void slots_to_coefficients(const double* rows, const SlotTable& table, double factor,
                           double* coefficients) {
  slots_to_coefficients_loops(rows, table, factor, coefficients);
}

void coefficients_to_slots(double* coefficients, const SlotTable& table, double* rows) {
  coefficients_to_slots_loops(coefficients, table, rows);
}

bool round_to_integers(const double* x, std::size_t n, std::int64_t* out) {
  return round_to_integers_loops(x, n, out);
}

}  // namespace quancrypt::simd::avx2
