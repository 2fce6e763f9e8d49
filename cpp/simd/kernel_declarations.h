// The functions of one kernel set, as simd/kernels.h explains them: included inside the namespace of each
// set, after kernels.h. Without #pragma once, on purpose.

void ntt_forward(std::uint64_t* x, const NttTable& table);
void ntt_inverse(std::uint64_t* x, const NttTable& table);
void multiply_add(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                  const std::uint64_t* c, std::size_t n, const Modulus& modulus);
void multiply_subtract(std::uint64_t* out, const std::uint64_t* a, const std::uint64_t* b,
                       const std::uint64_t* c, std::size_t n, const Modulus& modulus);
void add(std::uint64_t* sum, const std::uint64_t* x, std::size_t n, const Modulus& modulus);
void scale_add(std::uint64_t* sum, const std::uint64_t* x, std::uint64_t weight,
               std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus);
void subtract_scale(std::uint64_t* x, const std::uint64_t* y, std::uint64_t weight,
                    std::uint64_t weight_shoup, std::size_t n, const Modulus& modulus);
void remainder(std::uint64_t* out, const std::int64_t* x, std::uint64_t offset, std::size_t n,
               const Modulus& modulus);
void lift_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus);
void subtract_small(std::uint64_t* x, const std::int8_t* e, std::size_t n, const Modulus& modulus);
void chacha20(const std::uint8_t key[32], const std::uint8_t nonce[12], std::uint32_t counter,
              std::uint8_t* out, std::size_t blocks);
void sample_centred_binomial(const std::uint8_t* random, std::int8_t* out, std::size_t n);
std::size_t sample_ternary(const std::uint8_t* random, std::int8_t* out, std::size_t n);
std::size_t quantize_f32(const float* x, std::size_t n, float clip, float scale, std::int32_t q_max,
                         const std::uint32_t* dither, std::uint16_t* out);
std::size_t quantize_f64(const double* x, std::size_t n, double clip, double scale,
                         std::int32_t q_max, const std::uint32_t* dither, std::uint16_t* out);
void pack_fields(const std::uint16_t* fields, std::size_t n, const PackTable& table,
                 std::uint64_t* residues);
bool unpack_fields(const std::uint64_t* residues, std::size_t n, const PackTable& table,
                   const SumLimits& limits, std::uint32_t* fields);
void dequantize(const std::uint32_t* fields, std::size_t n, std::int64_t offset, double factor,
                float* out);
void slots_to_coefficients(const double* rows, const SlotTable& table, double factor,
                           double* coefficients);
void coefficients_to_slots(double* coefficients, const SlotTable& table, double* rows);
bool round_to_integers(const double* x, std::size_t n, std::int64_t* out);
void pack_bits(const std::uint64_t* x, std::size_t n, std::uint32_t bits, std::uint8_t* out);
void unpack_bits(const std::uint8_t* in, std::size_t n, std::uint32_t bits, std::uint64_t* out);
bool add_bits(const std::uint8_t* in, std::size_t n, bool negative, std::uint64_t* sum,
              const Modulus& modulus);
std::size_t find_not_below(const std::uint64_t* x, std::size_t n, std::uint64_t bound);
