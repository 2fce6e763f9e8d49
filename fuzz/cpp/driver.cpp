// Stands in for libFuzzer where the compiler has none: replays a corpus, then runs `--runs` mutations
// that depend on `--seed` alone. No coverage guides it.
//
//   fuzz_update [--runs N] [--seed S] [file or folder]...
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "input.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

using Text = std::vector<std::uint8_t>;
constexpr std::size_t kLongest = 4096;

Text current;  // what runs now, for the report
std::string name = "fuzz";

void keep_current() {
  const std::string file = name + "-crash";
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(current.data()),
             static_cast<std::streamsize>(current.size()));
  std::fprintf(stderr, "the input is in %s\n", file.c_str());
}

void run(const Text& text) {
  current = text;
  LLVMFuzzerTestOneInput(current.data(), current.size());
}

Text read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<Text> corpus(const std::vector<std::string>& places) {
  std::vector<std::filesystem::path> files;
  for (const std::string& place : places) {
    if (!std::filesystem::is_directory(place)) {
      files.emplace_back(place);
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(place)) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<Text> texts;
  for (const std::filesystem::path& file : files) texts.push_back(read(file));
  return texts;
}

/// One change of the kinds that libFuzzer makes.
void mutate(Text& text, const std::vector<Text>& texts, std::mt19937_64& random) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  static constexpr std::uint8_t kTelling[] = {0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF};
  const std::size_t at = text.empty() ? 0 : below(text.size());
  switch (below(8)) {
    case 0:
      if (!text.empty()) text[at] = static_cast<std::uint8_t>(text[at] ^ (1U << below(8)));
      break;
    case 1:
      if (!text.empty()) text[at] = static_cast<std::uint8_t>(random());
      break;
    case 2:
      if (!text.empty()) text[at] = kTelling[below(std::size(kTelling))];
      break;
    case 3:  // a run of one byte
      if (!text.empty()) {
        std::fill_n(text.begin() + static_cast<std::ptrdiff_t>(at),
                    std::min(1 + below(16), text.size() - at), kTelling[below(7)]);
      }
      break;
    case 4:
      text.insert(text.begin() + static_cast<std::ptrdiff_t>(at), 1 + below(8),
                  static_cast<std::uint8_t>(random()));
      break;
    case 5:
      text.resize(at);
      break;
    case 6: {  // a piece of another
      if (texts.empty()) break;
      const Text& other = texts[below(texts.size())];
      if (other.empty()) break;
      const std::size_t from = below(other.size());
      const std::size_t size = std::min(1 + below(64), other.size() - from);
      text.resize(std::max(text.size(), at + size));
      std::copy_n(other.begin() + static_cast<std::ptrdiff_t>(from), size,
                  text.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    }
    default:  // small steps of a byte
      if (!text.empty()) text[at] = static_cast<std::uint8_t>(text[at] + below(9) - 4);
  }
  if (text.size() > kLongest) text.resize(kLongest);
}

std::uint64_t number(const char* text) {
  std::uint64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc{} || stop != end) {
    std::fprintf(stderr, "%s is no number\n", text);
    std::exit(2);
  }
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t runs = 0;
  std::uint64_t seed = 1;
  std::vector<std::string> places;
  name = std::filesystem::path(argv[0]).filename().string();
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--runs") == 0 && i + 1 < argc) {
      runs = number(argv[++i]);
    } else if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
      seed = number(argv[++i]);
    } else {
      places.emplace_back(argv[i]);
    }
  }
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_set_death_callback(keep_current);
#endif
  const std::vector<Text> texts = corpus(places);
  for (const Text& text : texts) run(text);
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < runs; ++i) {
    Text text = texts.empty() ? Text{} : texts[random() % texts.size()];
    for (std::uint64_t changes = 1 + random() % 6; changes > 0; --changes) {
      mutate(text, texts, random);
    }
    run(text);
  }
  std::printf("%s: %zu files, %llu mutations, nothing found\n", name.c_str(), texts.size(),
              static_cast<unsigned long long>(runs));
  return 0;
}
