package io.github.mfagan.core;

/** A rectangle of an image, in LR pixels. */
public final class Window {
    public final int top;
    public final int left;
    public final int height;
    public final int width;

    /** Makes the rectangle whose upper left pixel is (top, left). */
    public Window(int top, int left, int height, int width) {
        this.top = top;
        this.left = left;
        this.height = height;
        this.width = width;
    }

    /** Returns the row below the last one. */
    public int bottom() {
        return top + height;
    }

    /** Returns the column right of the last one. */
    public int right() {
        return left + width;
    }

    /** Returns the part of this rectangle that lies in an image of height x width pixels. */
    public Window within(int imageHeight, int imageWidth) {
        int lower = Math.min(bottom(), imageHeight);
        int outer = Math.min(right(), imageWidth);
        return new Window(top, left, lower - top, outer - left);
    }

    @Override
    public String toString() {
        return height + "x" + width + " at (" + top + ", " + left + ")";
    }
}
