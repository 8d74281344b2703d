package io.github.mfagan.core;

/**
 * Which part of a picture a view shows, and how large: pinch to zoom, drag to pan.
 *
 * <p>Views and pictures are measured in pixels of their own; zoom is view pixels per picture pixel.
 */
public final class Viewport {
    /** A picture's pixel is shown at most so large. */
    public static final float MOST_ZOOM = 8;

    private float pictureWidth = 1;
    private float pictureHeight = 1;
    private float viewWidth = 1;
    private float viewHeight = 1;
    private float zoom = 1;
    private float centerX = 0.5f;
    private float centerY = 0.5f;

    /** Sets the picture's size and shows all of it. */
    public void setPicture(int width, int height) {
        pictureWidth = width;
        pictureHeight = height;
        fit();
    }

    /** Sets the view's size; what was in its middle stays there, and all of it if all was shown. */
    public void setView(int width, int height) {
        boolean whole = zoom <= leastZoom();
        viewWidth = Math.max(1, width);
        viewHeight = Math.max(1, height);
        if (whole) {
            fit();
        }
        clamp();
    }

    /** Shows the whole picture, as large as it fits. */
    public void fit() {
        zoom = leastZoom();
        centerX = pictureWidth / 2;
        centerY = pictureHeight / 2;
    }

    /** Zooms about a point of the view, whose pixel of the picture stays below it. */
    public void zoomBy(float factor, float x, float y) {
        float pictureX = toPictureX(x);
        float pictureY = toPictureY(y);
        zoom = Math.min(Math.max(zoom * factor, leastZoom()), mostZoom());
        centerX = pictureX - (x - viewWidth / 2) / zoom;
        centerY = pictureY - (y - viewHeight / 2) / zoom;
        clamp();
    }

    /** Moves the picture by so many pixels of the view. */
    public void pan(float right, float down) {
        centerX -= right / zoom;
        centerY -= down / zoom;
        clamp();
    }

    /** Returns view pixels per picture pixel. */
    public float zoom() {
        return zoom;
    }

    /** Returns whether the whole picture is shown. */
    public boolean isWhole() {
        return zoom <= leastZoom() * 1.001f;
    }

    public float toPictureX(float x) {
        return centerX + (x - viewWidth / 2) / zoom;
    }

    public float toPictureY(float y) {
        return centerY + (y - viewHeight / 2) / zoom;
    }

    public float toViewX(float x) {
        return (x - centerX) * zoom + viewWidth / 2;
    }

    public float toViewY(float y) {
        return (y - centerY) * zoom + viewHeight / 2;
    }

    public float viewWidth() {
        return viewWidth;
    }

    public float viewHeight() {
        return viewHeight;
    }

    public float pictureWidth() {
        return pictureWidth;
    }

    public float pictureHeight() {
        return pictureHeight;
    }

    /** Returns zoom as a multiple of the whole picture's, and the middle as shares, to be kept. */
    public float[] save() {
        return new float[] {zoom / leastZoom(), centerX / pictureWidth, centerY / pictureHeight};
    }

    /** Takes what {@link #save} gave, also of a view of another size. */
    public void restore(float[] saved) {
        zoom = Math.min(Math.max(saved[0] * leastZoom(), leastZoom()), mostZoom());
        centerX = saved[1] * pictureWidth;
        centerY = saved[2] * pictureHeight;
        clamp();
    }

    private float leastZoom() {
        return Math.min(viewWidth / pictureWidth, viewHeight / pictureHeight);
    }

    private float mostZoom() {
        return Math.max(MOST_ZOOM, leastZoom());
    }

    /** Leaves no empty border where the picture is larger than the view, and centres it else. */
    private void clamp() {
        centerX = clamped(centerX, pictureWidth, viewWidth / zoom);
        centerY = clamped(centerY, pictureHeight, viewHeight / zoom);
    }

    private static float clamped(float center, float length, float shown) {
        if (shown >= length) {
            return length / 2;
        }
        return Math.min(Math.max(center, shown / 2), length - shown / 2);
    }
}
