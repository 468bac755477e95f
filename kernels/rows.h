// Points' rows to and from vector registers, for one instruction set
// (for_each_unit.h); included once for each.

constexpr int kLanes = sizeof(Vector) / sizeof(float);

DJ_VECTOR Vector Read(const float* from) {
  return *reinterpret_cast<const Vector*>(from);
}

DJ_VECTOR void Write(const Vector& vector, float* to) {
  *reinterpret_cast<Vector*>(to) = vector;
}

// Four numbers of each of a Vector's points, in four Vectors: the points
// i + 4 g in the parts of the i-th, or a number of all points in each.
DJ_VECTOR void Transpose(Vector at[4]) {
  const Vector low = Low(at[0], at[1]), low2 = Low(at[2], at[3]);
  const Vector high = High(at[0], at[1]), high2 = High(at[2], at[3]);
  at[0] = LowPair(low, low2);
  at[1] = HighPair(low, low2);
  at[2] = LowPair(high, high2);
  at[3] = HighPair(high, high2);
}

// The first part of every Vector of four.
static constexpr int32_t kEveryFourth[13] = {0, 0, 0, 0, 4, 0, 0,
                                             0, 8, 0, 0, 0, 12};

template <int g>
DJ_VECTOR void StorePart(const Vector& vector, int64_t stride, float* to) {
  *reinterpret_cast<FourAnywhere*>(to + 4 * g * stride) = Part<g>(vector);
}

DJ_VECTOR void StoreParts(const Vector& vector, int64_t stride, float* to) {
  StorePart<0>(vector, stride, to);
  if constexpr (kLanes > 4) StorePart<1>(vector, stride, to);
  if constexpr (kLanes > 8) {
    StorePart<2>(vector, stride, to);
    StorePart<3>(vector, stride, to);
  }
}

// to[width, kPoints] = the transpose of `count` rows of `from`, then zeros.
// Asks for the rows of the next block: while one is worked on, no processor
// does.
void LoadRows(const float* from, int width, int64_t first, int count,
              float* to) {
  const int64_t stride = width;
  from += first * stride;
  int p = 0;
  for (; p + kLanes <= count; p += kLanes) {
    const float* rows = from + p * stride;
    // Of a row's last numbers fewer than four are wanted; what is read with
    // them belongs to the rows that follow.
    const int whole = p + kLanes + 3 <= count ? width : width / 4 * 4;
    int k = 0;
    for (; k < whole; k += 4) {
      Vector at[4];
DJ_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        if (i < kLanes / 4) {
          __builtin_prefetch(rows + kPoints * stride + kLanes * k +
                             kLineFloats * i);
        }
        at[i] = Join(rows + i * stride + k, kEveryFourth, stride);
      }
      Transpose(at);
      float* column = to + k * kPoints + p;
DJ_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        if (k + i < width) Write(at[i], column + i * kPoints);
      }
    }
    for (; k < width; ++k) {
      for (int i = 0; i < kLanes; ++i) {
        to[k * kPoints + p + i] = rows[i * stride + k];
      }
    }
  }
  for (int k = 0; k < width; ++k) {
    for (int i = p; i < kPoints; ++i) {
      to[k * kPoints + i] = i < count ? from[i * stride + k] : 0.0f;
    }
  }
}

// The first `count` columns of `from` become rows of `to`.
void StoreRows(const float* from, int width, int64_t first, int count,
               float* to) {
  const int64_t stride = width;
  to += first * stride;
  int p = 0;
  for (; p + kLanes <= count; p += kLanes) {
    float* rows = to + p * stride;
    int k = 0;
    for (; k + 4 <= width; k += 4) {
      Vector at[4];
DJ_UNROLL(4)
      for (int i = 0; i < 4; ++i) at[i] = Read(from + (k + i) * kPoints + p);
      Transpose(at);
DJ_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        StoreParts(at[i], stride, rows + i * stride + k);
      }
    }
    for (; k < width; ++k) {
      for (int i = 0; i < kLanes; ++i) {
        rows[i * stride + k] = from[k * kPoints + p + i];
      }
    }
  }
  for (; p < count; ++p) {
    for (int k = 0; k < width; ++k) {
      to[p * stride + k] = from[k * kPoints + p];
    }
  }
}
