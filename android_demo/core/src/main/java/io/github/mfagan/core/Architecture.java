package io.github.mfagan.core;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What a network's canonical string tells, e.g. {@code mfa_x4_w32_c3-3-2-4_s0-1-1-0}.
 *
 * <p>The grammar and the ranges are those of mfagan/architecture.py.
 */
public final class Architecture {
    private static final int MOST_CHARACTERS = 200;
    private static final int MOST_MODULES = 8;
    private static final int MOST_WIDTH = 256;
    private static final int MOST_BLOCKS = 64;
    private static final int MOST_RADIUS = 64;
    private static final int[] BRANCH_RADIUS = {0, 3, 7};
    private static final Pattern MFA =
            Pattern.compile(
                    "mfa_x([234])_w([1-9][0-9]{0,3})_c([1-9](?:-[1-9])*)_s([012](?:-[012])*)");
    private static final Pattern RRDB =
            Pattern.compile("rrdb_x4_w([1-9][0-9]{0,3})_b([1-9][0-9]{0,2})_g([1-9][0-9]{0,3})");

    /** Upscaling factor. */
    public final int scale;
    /** Channels of every feature map. */
    public final int width;
    /** LR pixels on each side that can change one LR pixel's output block. */
    public final int receptiveRadius;
    /** Multiple of which tile origins must be, LR pixels. */
    public final int alignment = 4;
    /** It has pooled branches, so that it sees its input on a grid and pads it. */
    public final boolean pools;
    /** Channels that a dense convolution adds; 0 for a generator, which has none. */
    private final int growth;

    private Architecture(int scale, int width, int radius, boolean pools, int growth) {
        this.scale = scale;
        this.width = width;
        this.receptiveRadius = radius;
        this.pools = pools;
        this.growth = growth;
    }

    /**
     * Returns the architecture that a canonical string names.
     *
     * @throws RefusedException the string is not of the grammar, or out of its ranges
     */
    public static Architecture parse(String text) throws RefusedException {
        if (text.length() <= MOST_CHARACTERS) {
            Matcher mfa = MFA.matcher(text);
            if (mfa.matches()) {
                return generator(text, mfa);
            }
            Matcher rrdb = RRDB.matcher(text);
            if (rrdb.matches()) {
                return teacher(text, rrdb);
            }
        }
        throw new RefusedException("'" + Text.shown(text) + "' is not an architecture");
    }

    private static Architecture generator(String text, Matcher match) throws RefusedException {
        int width = Integer.parseInt(match.group(2));
        String[] convolutions = match.group(3).split("-");
        String[] branches = match.group(4).split("-");
        int radius = 3;
        boolean pools = false;
        if (convolutions.length == branches.length) {
            for (int k = 0; k < branches.length; k++) {
                int branch = Integer.parseInt(branches[k]);
                radius += Math.max(Integer.parseInt(convolutions[k]), BRANCH_RADIUS[branch]);
                pools |= branch > 0;
            }
        }
        if (convolutions.length != branches.length
                || branches.length > MOST_MODULES
                || width > MOST_WIDTH
                || radius > MOST_RADIUS) {
            throw outOfRange(text);
        }
        return new Architecture(Integer.parseInt(match.group(1)), width, radius, pools, 0);
    }

    private static Architecture teacher(String text, Matcher match) throws RefusedException {
        int width = Integer.parseInt(match.group(1));
        int blocks = Integer.parseInt(match.group(2));
        int growth = Integer.parseInt(match.group(3));
        if (width > MOST_WIDTH || blocks > MOST_BLOCKS || growth > MOST_WIDTH) {
            throw outOfRange(text);
        }
        return new Architecture(4, width, 15 * blocks + 4, false, growth);
    }

    private static RefusedException outOfRange(String text) {
        return new RefusedException("'" + Text.shown(text) + "' is no architecture of mfagan's");
    }

    /**
     * Returns the numbers that are alive at once for each LR pixel, not less than
     * {@code latency.costs.peak_elements} says of the whole network.
     */
    public long liveNumbersPerPixel() {
        if (growth > 0) { // the last convolutions work at the full size
            return Math.max(2L * width * scale * scale, 12L * (width + 4L * growth));
        }
        long body = 5L * width + 3;
        long tail = 6L * scale * scale + width + 3;
        return Math.max(body, tail);
    }
}
