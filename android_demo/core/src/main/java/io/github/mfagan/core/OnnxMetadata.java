package io.github.mfagan.core;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.Charset;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Reads {@code metadata_props} out of an .onnx file, a protocol buffer, without parsing the graph.
 *
 * <p>A ModelProto is a row of fields. Field 14 holds one entry each, a key (field 1) and a value
 * (field 2), and field 7 the graph, which is skipped. Files come from strangers: no length that a
 * file tells makes memory be taken for it before the bytes are there.
 */
public final class OnnxMetadata {
    private static final int GRAPH = 7;
    private static final int METADATA = 14;
    private static final int VARINT = 0;
    private static final int FIXED64 = 1;
    private static final int BYTES = 2;
    private static final int FIXED32 = 5;
    private static final int MOST_ENTRY_BYTES = 1 << 16;
    private static final int MOST_ENTRIES = 1000;
    private static final Charset UTF_8 = Charset.forName("UTF-8");

    private final InputStream file;
    private final byte[] skipped = new byte[1 << 16];

    private OnnxMetadata(InputStream file) {
        this.file = file;
    }

    /**
     * Returns the metadata of an .onnx file by key.
     *
     * @param file the file's bytes, buffered; it is read to its end and not closed
     * @throws RefusedException it is no .onnx file, damaged, or says the same thing twice
     * @throws IOException it cannot be read
     */
    public static Map<String, String> read(InputStream file) throws RefusedException, IOException {
        return new OnnxMetadata(file).readModel();
    }

    private Map<String, String> readModel() throws RefusedException, IOException {
        Map<String, String> found = new LinkedHashMap<String, String>();
        boolean graph = false;
        for (long key = readKey(); key >= 0; key = readKey()) {
            int field = (int) (key >>> 3);
            int kind = (int) (key & 7);
            if (field == METADATA && kind == BYTES) {
                readEntry(found);
            } else {
                graph |= field == GRAPH && kind == BYTES;
                skip(kind);
            }
        }
        if (!graph) {
            throw damaged("it holds no graph");
        }
        return found;
    }

    private void readEntry(Map<String, String> found) throws RefusedException, IOException {
        long length = readVarint();
        if (length < 0 || length > MOST_ENTRY_BYTES || found.size() == MOST_ENTRIES) {
            throw damaged("its metadata are too long");
        }
        byte[] entry = new byte[(int) length];
        for (int done = 0; done < entry.length; ) {
            int some = file.read(entry, done, entry.length - done);
            if (some < 0) {
                throw damaged("it ends too early");
            }
            done += some;
        }
        String[] pair = {"", ""};
        int place = 0;
        while (place < entry.length) {
            int tag = entry[place++];
            int[] size = shortVarint(entry, place);
            int start = size[1];
            boolean known = tag == (1 << 3 | BYTES) || tag == (2 << 3 | BYTES);
            if (!known || size[0] > entry.length - start) {
                throw damaged("its metadata cannot be read");
            }
            pair[(tag >>> 3) - 1] = text(entry, start, size[0]);
            place = start + size[0];
        }
        if (found.put(pair[0], pair[1]) != null) {
            throw new RefusedException("its metadata say the same thing twice");
        }
    }

    /** Returns a length inside an entry, and the place behind it. */
    private static int[] shortVarint(byte[] entry, int place) throws RefusedException {
        int value = 0;
        for (int shift = 0; shift < 21 && place < entry.length; shift += 7) {
            int part = entry[place++];
            value |= (part & 127) << shift;
            if (part >= 0) {
                return new int[] {value, place};
            }
        }
        throw damaged("its metadata cannot be read");
    }

    private static String text(byte[] bytes, int start, int length) throws RefusedException {
        try {
            ByteBuffer part = ByteBuffer.wrap(bytes, start, length);
            return UTF_8.newDecoder().decode(part).toString();
        } catch (CharacterCodingException error) {
            throw new RefusedException("its metadata are not text", error);
        }
    }

    /** Returns a field's number and kind, or -1 at the end of the file. */
    private long readKey() throws RefusedException, IOException {
        int first = file.read();
        if (first < 0) {
            return -1;
        }
        long key = readVarint(first);
        if (key >>> 3 == 0 || key >>> 32 != 0) {
            throw damaged("it is another kind of file, or damaged");
        }
        return key;
    }

    private void skip(int kind) throws RefusedException, IOException {
        if (kind == VARINT) {
            readVarint();
            return;
        }
        long length = kind == FIXED64 ? 8 : kind == FIXED32 ? 4 : kind == BYTES ? readVarint() : -1;
        if (length < 0) {
            throw damaged("it is another kind of file, or damaged");
        }
        while (length > 0) { // skip() of a file goes behind its end without a word
            int some = file.read(skipped, 0, (int) Math.min(length, skipped.length));
            if (some < 0) {
                throw damaged("it ends too early");
            }
            length -= some;
        }
    }

    private long readVarint() throws RefusedException, IOException {
        return readVarint(file.read());
    }

    private long readVarint(int first) throws RefusedException, IOException {
        long value = 0;
        int part = first;
        for (int shift = 0; shift < 70; shift += 7) {
            if (part < 0) {
                throw damaged("it ends too early");
            }
            value |= (long) (part & 127) << shift;
            if (part < 128) {
                return value;
            }
            part = file.read();
        }
        throw damaged("it is another kind of file, or damaged");
    }

    private static RefusedException damaged(String why) {
        return new RefusedException("it is not an .onnx file that can be read: " + why);
    }
}
