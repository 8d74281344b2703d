package io.github.mfagan.core;

import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What an exported .onnx file says about itself (contract 4 of docs/architecture.md).
 *
 * <p>A file is accepted and refused as mfagan/model_card.py does it; the tests give both the same
 * metadata. {@link #checkForPhone} refuses what a phone cannot tile besides.
 */
public final class ModelCard {
    private static final List<String> KEYS =
            Arrays.asList(
                    "architecture", "scale", "precision", "layout", "dtype", "range", "shape",
                    "receptive_radius", "alignment", "producer", "checkpoint_sha256");
    private static final List<String> PRECISIONS =
            Arrays.asList("fp32", "fp16", "int8", "int8-a16");
    private static final String SIDE = "([1-9][0-9]{0,4})";
    private static final Pattern NCHW = Pattern.compile("1x3x" + SIDE + "x" + SIDE);
    private static final Pattern NHWC = Pattern.compile("1x" + SIDE + "x" + SIDE + "x3");
    private static final Pattern NUMBER = Pattern.compile("[0-9]{1,9}");
    private static final Pattern SHA256 = Pattern.compile("[0-9a-f]{64}");
    private static final int MOST_RADIUS = 64;

    /** What the canonical string tells. */
    public final Architecture architecture;
    /** The canonical string. */
    public final String name;
    /** Of weights and arithmetic: fp32, fp16, int8 or int8-a16. */
    public final String precision;
    /** The axes are (1, H, W, 3) instead of (1, 3, H, W). */
    public final boolean channelsLast;
    /** Input and output are bytes, 0 to 255, instead of floats, 0 to 1 and not clipped. */
    public final boolean bytes;
    /** Height and width of the only input that it takes, LR pixels, or null for any. */
    public final int[] size;
    /** The program that wrote it, and its version. */
    public final String producer;

    private ModelCard(Map<String, String> metadata, Architecture architecture, int[] size) {
        this.architecture = architecture;
        this.size = size;
        name = metadata.get("architecture");
        precision = metadata.get("precision");
        channelsLast = metadata.get("layout").equals("nhwc");
        bytes = metadata.get("dtype").equals("uint8");
        producer = metadata.get("producer");
    }

    /**
     * Returns the card of an .onnx file.
     *
     * @param file its bytes, buffered; read to the end and not closed
     * @throws RefusedException it is no .onnx file of mfagan-export; the sentence says why
     * @throws IOException it cannot be read
     */
    public static ModelCard read(InputStream file) throws RefusedException, IOException {
        return of(OnnxMetadata.read(file));
    }

    /**
     * Returns the card that metadata tell; keys that are not the card's are ignored.
     *
     * @throws RefusedException a key is missing, or a value is not allowed
     */
    public static ModelCard of(Map<String, String> metadata) throws RefusedException {
        List<String> missing = new ArrayList<String>();
        for (String key : KEYS) {
            if (!metadata.containsKey(key)) {
                missing.add(key);
            }
        }
        if (missing.size() == KEYS.size()) {
            throw new RefusedException(
                    "it carries no mfagan metadata; make one with mfagan-export");
        }
        if (!missing.isEmpty()) {
            throw new RefusedException("its metadata lack " + missing);
        }
        need(metadata, "precision", PRECISIONS);
        need(metadata, "layout", Arrays.asList("nchw", "nhwc"));
        need(metadata, "dtype", Arrays.asList("float32", "uint8"));
        boolean floats = metadata.get("dtype").equals("float32");
        need(metadata, "range", Arrays.asList(floats ? "0..1" : "0..255"));
        int[] size = size(metadata);
        if (!metadata.get("producer").startsWith("mfagan ")) {
            throw wrong(metadata, "producer", "mfagan and its version");
        }
        if (!SHA256.matcher(metadata.get("checkpoint_sha256")).matches()) {
            throw wrong(metadata, "checkpoint_sha256", "64 hexadecimal digits");
        }
        Architecture architecture = Architecture.parse(metadata.get("architecture"));
        need(metadata, "scale", architecture.scale);
        need(metadata, "receptive_radius", architecture.receptiveRadius);
        need(metadata, "alignment", architecture.alignment);
        return new ModelCard(metadata, architecture, size);
    }

    /**
     * Refuses a network whose tiles would be all overlap: a teacher, or one of a small fixed size.
     *
     * @throws RefusedException the sentence says which export would do
     */
    public void checkForPhone() throws RefusedException {
        if (architecture.receptiveRadius > MOST_RADIUS) {
            throw new RefusedException(
                    name + " sees " + architecture.receptiveRadius
                            + " pixels around each pixel, too many for the tiles of a phone");
        }
        if (size == null) {
            return;
        }
        int margin = Tiling.roundUp(architecture.receptiveRadius, grid());
        int least = 2 * margin + grid();
        for (int side : size) {
            if (side % grid() != 0 || side < least) {
                throw new RefusedException(
                        "its fixed size of " + size[0] + "x" + size[1]
                                + " cannot tile a larger picture: sides must be multiples of "
                                + grid() + " of at least " + least
                                + "; export it with such an --input, or dynamic");
            }
        }
    }

    /** Returns the tiles of an LR image; a fixed size is used instead of the tile's. */
    public List<Tile> plan(int height, int width, int tile) {
        int radius = architecture.receptiveRadius;
        return size == null
                ? Tiling.tiles(height, width, tile, radius, architecture.alignment)
                : Tiling.fixedTiles(height, width, size, radius, grid());
    }

    /** Returns the shape of a tensor of height x width pixels. */
    public long[] shape(int height, int width) {
        return channelsLast
                ? new long[] {1, height, width, 3}
                : new long[] {1, 3, height, width};
    }

    /** Returns what a user reads about the model, a line each. */
    public String describe() {
        String input = size == null ? "any size" : size[0] + "x" + size[1] + " tiles";
        return name + "\n"
                + architecture.scale + "x larger, " + precision + ", " + input + "\n"
                + "sees " + architecture.receptiveRadius + " pixels around each\n"
                + (bytes ? "bytes" : "floats") + ", by " + producer;
    }

    /** Without pooled branches there is no grid, and the network pads nothing. */
    private int grid() {
        return architecture.pools ? architecture.alignment : 1;
    }

    private static int[] size(Map<String, String> metadata) throws RefusedException {
        String shape = metadata.get("shape");
        if (shape.equals("dynamic")) {
            return null;
        }
        boolean last = metadata.get("layout").equals("nhwc");
        Matcher match = (last ? NHWC : NCHW).matcher(shape);
        if (!match.matches()) {
            throw wrong(
                    metadata, "shape", "dynamic or like " + (last ? "1x128x128x3" : "1x3x128x128"));
        }
        return new int[] {Integer.parseInt(match.group(1)), Integer.parseInt(match.group(2))};
    }

    private static void need(Map<String, String> metadata, String key, List<String> known)
            throws RefusedException {
        if (!known.contains(metadata.get(key))) {
            throw wrong(metadata, key, "one of " + known);
        }
    }

    private static void need(Map<String, String> metadata, String key, int right)
            throws RefusedException {
        String text = metadata.get(key);
        if (!NUMBER.matcher(text).matches() || Integer.parseInt(text) != right) {
            throw wrong(metadata, key, right + " for this architecture");
        }
    }

    private static RefusedException wrong(
            Map<String, String> metadata, String key, String wanted) {
        return new RefusedException(
                key + " must be " + wanted + ", got '" + Text.shown(metadata.get(key)) + "'");
    }
}
