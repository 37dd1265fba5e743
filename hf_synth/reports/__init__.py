"""Reports: HTML and Markdown pages, and plots as SVG."""
