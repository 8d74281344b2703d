package io.github.mfagan.core;

/** What a before/after view is drawn with: Android's canvas, or the preview's. */
public interface Painter {
    /** Left, before: the picture enlarged by interpolation. */
    int BEFORE = 0;
    /** Right, after: the network's result. */
    int AFTER = 1;

    /**
     * Draws a part of a picture.
     *
     * @param from left, top, right, bottom, pixels of the result
     * @param to left, top, right, bottom, pixels of the view
     */
    void picture(int which, float[] from, float[] to);

    /** Fills a rectangle (left, top, right, bottom, pixels of the view) with 0xAARRGGBB. */
    void fill(int color, float left, float top, float right, float bottom);

    /** Fills a circle. */
    void circle(int color, float x, float y, float radius);

    /** Writes a text; y is its base line, size its letters' height. */
    void text(String text, int color, float x, float y, float size);

    /** Returns a text's width, pixels of the view. */
    float textWidth(String text, float size);
}
