package io.github.mfagan.core;

import java.util.ArrayList;
import java.util.List;

/**
 * Plans the tiles of an image so that they give what the whole frame gives, exactly.
 *
 * <p>The rule is that of mfagan/tiling.py, and the tests compare the two tile by tile: windows start
 * on the grid of the network's pooled branches, overlap by its receptive radius, and end where the
 * image ends or far enough away.
 */
public final class Tiling {
    private Tiling() {}

    /**
     * Returns tiles whose cores cover an image once, row by row, for a network of any input size.
     *
     * @param height of the image, LR pixels
     * @param width of the image, LR pixels
     * @param tile largest side of a core, LR pixels; rounded up to a multiple of the alignment
     * @param radius the network's receptive radius, LR pixels
     * @param alignment multiple of which window origins must be, LR pixels
     * @throws IllegalArgumentException an argument is out of its range
     */
    public static List<Tile> tiles(int height, int width, int tile, int radius, int alignment) {
        check(height, width, radius, alignment);
        if (tile < 1) {
            throw new IllegalArgumentException("tile must be at least 1 LR pixel, got " + tile);
        }
        int core = roundUp(tile, alignment);
        int margin = roundUp(radius, alignment);
        return product(spans(height, core, margin), spans(width, core, margin));
    }

    /**
     * Returns tiles for a network that takes inputs of one size only.
     *
     * <p>Windows may reach past the bottom and the right of the image: the caller repeats the
     * image's edge there.
     *
     * @param size height and width of the network's input, LR pixels
     * @param alignment grid of the network's pooled branches; 1 for a network without any
     * @throws IllegalArgumentException the size is too small for the radius, or off the grid
     */
    public static List<Tile> fixedTiles(
            int height, int width, int[] size, int radius, int alignment) {
        check(height, width, radius, alignment);
        return product(
                fixedSpans(height, size[0], radius, alignment),
                fixedSpans(width, size[1], radius, alignment));
    }

    /** Returns the least multiple of a number that is not below a value. */
    static int roundUp(int value, int multiple) {
        return (value + multiple - 1) / multiple * multiple;
    }

    /** Spans are window start and stop, core start and stop, along one axis. */
    private static List<int[]> spans(int length, int core, int margin) {
        List<int[]> found = new ArrayList<int[]>();
        for (int start = 0; start < length; start += core) {
            int stop = Math.min(length, start + core);
            int first = Math.max(0, start - margin);
            int last = (int) Math.min(length, (long) start + core + margin);
            found.add(new int[] {first, last, start, stop});
            if (start > length - core) {
                break; // the next start would overflow for cores near the largest number
            }
        }
        return found;
    }

    private static List<int[]> fixedSpans(int length, int size, int radius, int alignment) {
        List<int[]> found = new ArrayList<int[]>();
        if (length <= size) {
            found.add(new int[] {0, size, 0, length});
            return found;
        }
        int margin = roundUp(radius, alignment);
        int least = 2 * margin + alignment;
        if (size % alignment != 0 || size < least) {
            throw new IllegalArgumentException(
                    length + " pixels cannot be tiled by a model of fixed size " + size
                            + ": tiles need a multiple of " + alignment + " of at least " + least);
        }
        int last = roundUp(length, alignment) - size;
        int core = 0;
        int start = 0;
        while (true) {
            boolean end = start >= last;
            start = Math.min(start, last);
            int stop = end ? length : start + size - margin;
            found.add(new int[] {start, start + size, core, stop});
            if (end) {
                return found;
            }
            core = stop;
            start += size - 2 * margin;
        }
    }

    private static List<Tile> product(List<int[]> rows, List<int[]> columns) {
        List<Tile> found = new ArrayList<Tile>();
        for (int[] r : rows) {
            for (int[] c : columns) {
                Window window = new Window(r[0], c[0], r[1] - r[0], c[1] - c[0]);
                found.add(new Tile(window, new Window(r[2], c[2], r[3] - r[2], c[3] - c[2])));
            }
        }
        return found;
    }

    private static void check(int height, int width, int radius, int alignment) {
        if (height < 1 || width < 1) {
            throw new IllegalArgumentException(
                    "an image must have at least 1x1 pixels, got " + height + "x" + width);
        }
        if (radius < 0 || alignment < 1) {
            throw new IllegalArgumentException(
                    "radius and alignment must be at least 0 and 1, got "
                            + radius + " and " + alignment);
        }
    }
}
