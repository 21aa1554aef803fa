# The server, without torch: docker build -t uniemox . && docker run --rm -p 127.0.0.1:8000:8000 uniemox
FROM python:3.13-slim

COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[serve]" && rm -rf /src
RUN useradd --create-home --uid 10001 uniemox
USER uniemox
WORKDIR /srv
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["uniemox", "serve", "--host", "0.0.0.0", "--port", "8000"]
