"""The processor's way to run instructions: one loop over pictures, each carried through all its steps while it lies in
the cache. Compiled by numba at the first use and kept on disk.

The same instructions run by tensor operations in ``augment.tensors``, to the same bits: all arithmetic is of whole
numbers, 16 of whose bits lie behind the point. What an instruction means is told in ``augment.steps``.

Legend: C channels, H height, W width; a picture is uint8 [C, H, W].
"""

from __future__ import annotations

import numba
import numpy as np

from handful.augment import steps

BIAS, ONE = np.int32(steps.BIAS), np.int32(steps.ONE)
RED, GREEN, BLUE = (np.int32(weight) for weight in steps.WHOLE_LUMA)
LINEAR, CONTRAST, COLOR, SHARPNESS = steps.LINEAR, steps.CONTRAST, steps.COLOR, steps.SHARPNESS
MASK, SOLARIZE, AUTOCONTRAST, EQUALIZE = steps.MASK, steps.SOLARIZE, steps.AUTOCONTRAST, steps.EQUALIZE
NEAREST, BILINEAR, ERASE, WINDOW = steps.NEAREST, steps.BILINEAR, steps.ERASE, steps.WINDOW

U = np.uint64  # places in an array: signed ones would be looked at for being negative

native = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")


@native
def run(x, rows, out):  # type: ignore[no-untyped-def]
    """Every picture through its own steps: x uint8 [B, C, H, W], rows int32 [B, N, 8], out like x."""
    spare = np.empty(x.shape[1:], np.uint8)
    for b in range(len(x)):
        source, target = x[b], out[b]
        written = False
        for row in rows[b]:
            kind = row[0]
            if kind == steps.IDENTITY:
                continue
            if kind in (NEAREST, BILINEAR, WINDOW):  # these cannot write where they read
                if written:
                    _copy(target, spare)
                    source = spare
                if kind == NEAREST:
                    _nearest(source, target, row)
                elif kind == BILINEAR:
                    _bilinear(source, target, row)
                else:
                    _window(source, target, row)
            elif kind == SHARPNESS:
                if written:
                    _copy(target, spare)
                    source = spare
                _sharpness(source, target, row[1])
            else:
                _point(source, target, row)
            source, written = target, True
        if not written:
            _copy(source, target)


@native
def _copy(x, out):  # type: ignore[no-untyped-def]
    a, b = x.reshape(-1), out.reshape(-1)
    for i in range(a.size):
        b[i] = a[i]


@native
def _point(x, out, row):  # type: ignore[no-untyped-def]
    """Steps that look at one pixel at a time, and at the picture's histogram or mean; out may be x."""
    kind, value = row[0], row[1]
    channels = x.shape[0]
    if kind == CONTRAST:
        _linear(x, out, value, (ONE - value) * _mean(x) + BIAS)
    elif kind == LINEAR:
        _linear(x, out, value, row[2])
    elif kind == COLOR:
        if channels == 3:
            _color(x, out, value)
        else:
            _copy(x, out)
    elif kind == MASK:
        a, b = x.reshape(-1), out.reshape(-1)
        mask = np.uint8(value)
        for i in range(a.size):
            b[i] = a[i] & mask
    elif kind == SOLARIZE:
        a, b = x.reshape(-1), out.reshape(-1)
        for i in range(a.size):
            b[i] = a[i] if np.int32(a[i]) < value else np.uint8(255) - a[i]
    elif kind == AUTOCONTRAST:
        for c in range(channels):
            low, high = _range(x[c])
            if high > low:
                scale = (np.int32(255) * ONE + (high - low - 1)) // (high - low)
                _linear(x[c : c + 1], out[c : c + 1], scale, -low * scale)
            else:
                _copy(x[c], out[c])
    elif kind == EQUALIZE:
        for c in range(channels):
            _equalize(x[c].reshape(-1), out[c].reshape(-1))
    elif kind == ERASE:
        _copy(x, out)
        for c in range(channels):
            for i in range(row[1], row[1] + row[3]):
                for j in range(row[2], row[2] + row[4]):
                    out[c, i, j] = np.uint8(row[7])


@native
def _linear(x, out, scale, offset):  # type: ignore[no-untyped-def]
    a, b = x.reshape(-1), out.reshape(-1)
    for i in range(a.size):
        v = (np.int32(a[i]) * scale + offset) >> np.int32(16)
        b[i] = np.uint8(min(max(v, np.int32(0)), np.int32(255)))


@native
def _mean(x):  # type: ignore[no-untyped-def]
    """Mean gray, rounded."""
    n = x[0].size
    total = np.int64(0)
    if x.shape[0] == 3:
        red, green, blue = x[0].reshape(-1), x[1].reshape(-1), x[2].reshape(-1)
        for i in range(n):
            total += _luma(red[i], green[i], blue[i])
    else:
        gray = x[0].reshape(-1)
        for i in range(n):
            total += gray[i]
    return np.int32((2 * total + n) // (2 * n))


@native
def _luma(red, green, blue):  # type: ignore[no-untyped-def]
    weighted = np.int32(red) * RED + np.int32(green) * GREEN + np.int32(blue) * BLUE
    return (weighted + np.int32(32768)) >> np.int32(16)


@native
def _color(x, out, value):  # type: ignore[no-untyped-def]
    red, green, blue = x[0].reshape(-1), x[1].reshape(-1), x[2].reshape(-1)
    a, b, c = out[0].reshape(-1), out[1].reshape(-1), out[2].reshape(-1)
    for i in range(red.size):
        gray = (ONE - value) * _luma(red[i], green[i], blue[i]) + BIAS
        r = (np.int32(red[i]) * value + gray) >> np.int32(16)
        g = (np.int32(green[i]) * value + gray) >> np.int32(16)
        s = (np.int32(blue[i]) * value + gray) >> np.int32(16)
        a[i] = np.uint8(min(max(r, np.int32(0)), np.int32(255)))
        b[i] = np.uint8(min(max(g, np.int32(0)), np.int32(255)))
        c[i] = np.uint8(min(max(s, np.int32(0)), np.int32(255)))


@native
def _range(plane):  # type: ignore[no-untyped-def]
    a = plane.reshape(-1)
    low, high = np.uint8(255), np.uint8(0)
    for i in range(a.size):
        low, high = min(low, a[i]), max(high, a[i])
    return np.int32(low), np.int32(high)


@native
def _equalize(a, b):  # type: ignore[no-untyped-def]
    counts = np.zeros((4, 256), np.int32)  # four, so that equal neighbours do not wait for each other
    whole = a.size - a.size % 4
    for i in range(0, whole, 4):
        counts[0, a[i]] += 1
        counts[1, a[i + 1]] += 1
        counts[2, a[i + 2]] += 1
        counts[3, a[i + 3]] += 1
    for i in range(whole, a.size):
        counts[0, a[i]] += 1
    count = counts.sum(0)
    last = 255
    while count[last] == 0:
        last -= 1
    step = np.int32((a.size - count[last]) // 255)
    if step == 0:
        _copy(a, b)
        return
    table = np.empty(256, np.uint8)
    before = step // np.int32(2)
    for v in range(256):
        table[v] = np.uint8(min(before // step, np.int32(255)))
        before += np.int32(count[v])
    for i in range(a.size):
        b[i] = table[a[i]]


@native
def _sharpness(x, out, value):  # type: ignore[no-untyped-def]
    channels, h, w = x.shape
    _copy(x, out)
    if h < 3 or w < 3:
        return
    source, target = x.reshape(-1), out.reshape(-1)
    rest, width = ONE - value, U(w)
    sums = np.empty(w, np.int32)
    for c in range(channels):
        for i in range(1, h - 1):
            here = U((c * h + i) * w)
            for j in range(width):
                pixel = here + j
                sums[j] = (
                    np.int32(source[pixel - width])
                    + np.int32(source[pixel])
                    + np.int32(source[pixel + width])
                )
            for j in range(U(1), width - U(1)):
                middle = np.int32(source[here + j])
                box = sums[j - U(1)] + sums[j] + sums[j + U(1)] + np.int32(4) * middle
                smooth = ((box + np.int32(6)) * np.int32(20165)) >> np.int32(18)  # / 13, rounded
                v = (middle * value + rest * smooth + BIAS) >> np.int32(16)
                target[here + j] = np.uint8(min(max(v, np.int32(0)), np.int32(255)))


@native
def _move(source, seen, target, to, n):  # type: ignore[no-untyped-def]
    """n values from source[seen:] to target[to:]."""
    a, b = U(seen), U(to)
    for j in range(U(n)):
        target[b + j] = source[a + j]


@native
def _fill(target, to, n, value):  # type: ignore[no-untyped-def]
    a = U(to)
    for j in range(U(n)):
        target[a + j] = value


@native
def _nearest(x, out, row):  # type: ignore[no-untyped-def]
    channels, h, w = x.shape
    source, target = x.reshape(-1), out.reshape(-1)
    a, b, c, d, e, f, fill = row[1], row[2], row[3], row[4], row[5], row[6], np.uint8(row[7])
    width, height = np.uint32(w), np.uint32(h)
    index = np.empty(w, np.int32)  # of the pixel that is seen, in its plane; -1 outside
    for i in range(h):
        across, down = b * np.int32(i) + c, e * np.int32(i) + f
        whole = a == ONE and d == 0  # the line moves whole
        shift, line = np.int64(across >> np.int32(16)), np.int64(down >> np.int32(16))
        if whole:
            first, last = min(max(0, -shift), w), max(min(w, w - shift), 0)
            if line < 0 or line >= h or first >= last:
                first, last = w, w
        else:
            for j in range(U(w)):
                column = (a * np.int32(j) + across) >> np.int32(16)
                level = (d * np.int32(j) + down) >> np.int32(16)
                inside = (np.uint32(column) < width) & (np.uint32(level) < height)
                index[j] = level * np.int32(w) + column if inside else np.int32(-1)
            first, last = 0, w  # what lies inside is one stretch: a picture is convex
            while first < w and index[first] < 0:
                first += 1
            while last > first and index[last - 1] < 0:
                last -= 1
        for k in range(channels):
            to = (k * h + i) * w
            _fill(target, to, first, fill)
            if whole:
                _move(source, (k * h + line) * w + shift + first, target, to + first, last - first)
            else:
                plane, place = U(k * h * w), U(to)
                for j in range(U(first), U(last)):
                    target[place + j] = source[plane + U(index[j])]
            _fill(target, to + last, w - last, fill)


@native
def _bilinear(x, out, row):  # type: ignore[no-untyped-def]
    channels, h, w = x.shape
    source, target = x.reshape(-1), out.reshape(-1)
    a, b, c, d, e, f, fill = row[1], row[2], row[3], row[4], row[5], row[6], np.uint8(row[7])
    width, height, half, full = np.uint32(w), np.uint32(h), np.int32(1 << 15), np.int32(256)
    one, none = np.int32(1), np.int32(0)
    for i in range(h):
        across, down, place = b * np.int32(i) + c, e * np.int32(i) + f, U(i * w)
        for j in range(U(w)):
            u, v = a * np.int32(j) + across, d * np.int32(j) + down
            inside = (np.uint32(u >> np.int32(16)) < width) & (np.uint32(v >> np.int32(16)) < height)
            if not inside:
                for k in range(channels):
                    target[U(k * h * w) + place + j] = fill
                continue
            u, v = u - half, v - half  # pixels' values stand at their middles
            left, top = u >> np.int32(16), v >> np.int32(16)
            p, q = (u >> np.int32(8)) & np.int32(255), (v >> np.int32(8)) & np.int32(255)
            right, bottom = min(left + one, np.int32(w - 1)), min(top + one, np.int32(h - 1))
            left, top = max(left, none), max(top, none)
            nw, ne = U(top * np.int32(w) + left), U(top * np.int32(w) + right)
            sw, se = U(bottom * np.int32(w) + left), U(bottom * np.int32(w) + right)
            for k in range(channels):
                plane = U(k * h * w)
                upper = np.int32(source[plane + nw]) * (full - p) + np.int32(source[plane + ne]) * p
                lower = np.int32(source[plane + sw]) * (full - p) + np.int32(source[plane + se]) * p
                mixed = (upper * (full - q) + lower * q + half) >> np.int32(16)
                target[plane + place + j] = np.uint8(mixed)


@native
def _window(x, out, row):  # type: ignore[no-untyped-def]
    channels, h, w = x.shape
    source, target = x.reshape(-1), out.reshape(-1)
    down, right, mirror = np.int64(row[1]), np.int64(row[2]), row[3] != 0
    first, last = max(0, -right), min(w, w - right)
    for i in range(h):
        line = abs(i + down)
        line = line if line < h else 2 * (h - 1) - line
        for k in range(channels):
            seen, to = (k * h + line) * w, (k * h + i) * w
            for j in range(first):  # reflected
                target[to + j] = source[seen - j - right]
            _move(source, seen + first + right, target, to + first, last - first)
            for j in range(last, w):  # reflected
                target[to + j] = source[seen + 2 * (w - 1) - j - right]
            if mirror:
                one, other = U(to), U(to + w - 1)
                for j in range(U(w // 2)):
                    target[one + j], target[other - j] = target[other - j], target[one + j]
